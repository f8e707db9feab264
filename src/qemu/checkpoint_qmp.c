/*
 * checkpoint_qmp.c: typed transactions, and the rules no command may break
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a QMP transaction prepares its actions in list order; each takes effect at
 * once, sees what the ones before it did, and all are undone when one fails.  Bitmap
 * actions do not drain the node: between two of them a guest with an iothread may
 * write. So the order is the safety: first add, enabled, what records from now on; then
 * merge; then disable or remove.
 *
 * Some commands end the guest whatever the order: an empty merge and a transaction that
 * enables a missing bitmap crash QEMU.  They are refused here, for every caller, before
 * QEMU sees them (docs/internals/rules.md).
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_qmp.h"

struct virCheckpointTxn {
    virCheckpointJson *actions; /* array */
};

virCheckpointTxn *
virCheckpointTxnNew(void)
{
    virCheckpointTxn *txn = g_new0(virCheckpointTxn, 1);

    txn->actions = virCheckpointJsonNewArray();
    return txn;
}

void
virCheckpointTxnFree(virCheckpointTxn *txn)
{
    if (!txn)
        return;
    virCheckpointJsonFree(txn->actions);
    g_free(txn);
}

void
virCheckpointTxnAction(virCheckpointTxn *txn,
                       const gchar *type,
                       virCheckpointJson *data)
{
    virCheckpointJsonAppend(
        txn->actions, virCheckpointJsonBuild("s:type", type, "a:data", data, NULL));
}

void
virCheckpointTxnAdd(virCheckpointTxn *txn,
                    const gchar *node,
                    const gchar *name,
                    guint64 granularity,
                    guint flags)
{
    virCheckpointJson *data =
        virCheckpointJsonBuild("s:node", node, "s:name", name, NULL);

    if (granularity)
        virCheckpointJsonAddUint64(data, "granularity", granularity);
    if (flags & VIR_CHECKPOINT_BITMAP_PERSISTENT)
        virCheckpointJsonAddBoolean(data, "persistent", TRUE);
    if (flags & VIR_CHECKPOINT_BITMAP_DISABLED)
        virCheckpointJsonAddBoolean(data, "disabled", TRUE);
    virCheckpointTxnAction(txn, "block-dirty-bitmap-add", data);
}

void
virCheckpointTxnDisable(virCheckpointTxn *txn, const gchar *node, const gchar *name)
{
    virCheckpointTxnAction(
        txn, "block-dirty-bitmap-disable",
        virCheckpointJsonBuild("s:node", node, "s:name", name, NULL));
}

void
virCheckpointTxnRemove(virCheckpointTxn *txn, const gchar *node, const gchar *name)
{
    virCheckpointTxnAction(
        txn, "block-dirty-bitmap-remove",
        virCheckpointJsonBuild("s:node", node, "s:name", name, NULL));
}

void
virCheckpointTxnMerge(virCheckpointTxn *txn,
                      const gchar *node,
                      const gchar *name,
                      GArray *sources)
{
    virCheckpointJson *bitmaps;
    guint i;

    if (sources->len == 0)
        return;
    bitmaps = virCheckpointJsonNewArray();
    for (i = 0; i < sources->len; i++) {
        const virCheckpointBitmapRef *ref =
            &g_array_index(sources, virCheckpointBitmapRef, i);

        virCheckpointJsonAppend(
            bitmaps,
            virCheckpointJsonBuild("s:node", ref->node, "s:name", ref->name, NULL));
    }
    virCheckpointTxnAction(txn, "block-dirty-bitmap-merge",
                           virCheckpointJsonBuild("s:node", node, "s:target", name,
                                                  "a:bitmaps", bitmaps, NULL));
}

gsize
virCheckpointTxnLength(const virCheckpointTxn *txn)
{
    return virCheckpointJsonLength(txn->actions);
}

gboolean
virCheckpointTxnRun(virCheckpointTxn *txn,
                    virCheckpointMonitor *monitor,
                    GError **error)
{
    virCheckpointJson *actions;

    if (virCheckpointTxnLength(txn) == 0)
        return TRUE;
    actions = txn->actions;
    txn->actions = virCheckpointJsonNewArray();
    return virCheckpointMonitorDo(monitor, "transaction",
                                  virCheckpointJsonBuild("a:actions", actions, NULL),
                                  error);
}

static gboolean
virCheckpointQmpRefuse(const gchar *command, const gchar *rule, GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                "%s is never sent: %s", command, rule);
    return FALSE;
}

gboolean
virCheckpointQmpCheck(const gchar *command,
                      const virCheckpointJson *arguments,
                      GError **error)
{
    static const struct {
        const gchar *command;
        const gchar *rule;
    } never[] = {
        {"block-dirty-bitmap-enable",
         "enabling a missing bitmap in a transaction kills QEMU"},
        {"blockdev-set-active", "the next write of a running guest would kill QEMU"},
        {"blockdev-reopen", "a read-only reopen makes every guest write fail"},
    };
    const virCheckpointJson *actions;
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(never); i++) {
        if (g_str_equal(command, never[i].command))
            return virCheckpointQmpRefuse(command, never[i].rule, error);
    }
    if (g_str_equal(command, "block-dirty-bitmap-merge") &&
        virCheckpointJsonLength(virCheckpointJsonGet(arguments, "bitmaps")) == 0)
        return virCheckpointQmpRefuse(command, "an empty merge kills QEMU", error);
    if (g_str_equal(command, "migrate")) {
        const gchar *uri = virCheckpointJsonGetString(arguments, "uri");

        if (!uri || g_str_has_prefix(uri, "exec:"))
            return virCheckpointQmpRefuse(command, "exec: kills a sandboxed QEMU",
                                          error);
    }
    if (!g_str_equal(command, "transaction"))
        return TRUE;
    actions = virCheckpointJsonGet(arguments, "actions");
    for (i = 0; i < virCheckpointJsonLength(actions); i++) {
        const virCheckpointJson *action = virCheckpointJsonIndex(actions, i);
        const gchar *type = virCheckpointJsonGetString(action, "type");

        if (!type ||
            !virCheckpointQmpCheck(type, virCheckpointJsonGet(action, "data"), error))
            return type ? FALSE
                        : virCheckpointQmpRefuse(command, "an action has no type",
                                                 error);
    }
    return TRUE;
}
