/*
 * checkpoint_dispatch_checkpoint.c: the seven checkpoint calls
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A checkpoint is either ours (the engine has a record of that name) or libvirt's.
 * Calls that name one of libvirt's, or none at all, are passed on untouched.  A call
 * that names one of ours is first asked of libvirt with a name that it cannot have:
 * libvirt then checks connection, flags and ACL and says "no such checkpoint".
 *
 * Lists hold libvirt's checkpoints first, then ours; flags select among ours as
 * libvirt's code does among its own.  The two never share relations: the parent of one
 * of ours is one of ours.
 */

#include "config.h"

#include "checkpoint_def.h"
#include "checkpoint_dispatchpriv.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

/** Answers with checkpoint @name of the domain as it is now called. */
static void
virCheckpointDispatchReplyCheckpoint(virCheckpointCall *call,
                                     const virCheckpointProtoDomain *given,
                                     const gchar *name)
{
    g_auto(virCheckpointProtoDomainArgs) now = {0};
    virCheckpointProtoCheckpoint reply = {.name = (gchar *)name, .dom = *given};

    if (virCheckpointCallDomain(call, given->uuid, &now))
        reply.dom = now.dom;
    virCheckpointCallReply(virCheckpointProtoCheckpoint, call, &reply);
}

/** The part of libvirt from which such an error of a create comes. */
static gint
virCheckpointDispatchCreateFrom(const GError *error)
{
    switch (error->code) {
    case VIR_ERR_XML_ERROR:
        return strstr(error->message, "root element") ? VIR_CHECKPOINT_FROM_XML
                                                      : VIR_CHECKPOINT_FROM_CHECKPOINT;
    case VIR_ERR_XML_INVALID_SCHEMA:
        return VIR_CHECKPOINT_FROM_XML;
    case VIR_ERR_XML_DETAIL:
        return VIR_CHECKPOINT_FROM_CHECKPOINT;
    case VIR_ERR_INTERNAL_ERROR:
        return g_str_has_prefix(error->message, "missing creationTime")
                   ? VIR_CHECKPOINT_FROM_CHECKPOINT
                   : VIR_CHECKPOINT_FROM_QEMU;
    case VIR_ERR_CONFIG_UNSUPPORTED:
        /* Of the XML's list of disks; not of what a disk can hold. */
        return g_str_has_prefix(error->message, "checkpoint for disk") ||
                       g_str_has_prefix(error->message, "bitmap for disk")
                   ? VIR_CHECKPOINT_FROM_QEMU
                   : VIR_CHECKPOINT_FROM_CHECKPOINT;
    case VIR_ERR_OPERATION_FAILED:
        return g_str_has_suffix(error->message, "already exists")
                   ? VIR_CHECKPOINT_FROM_DOMAIN
                   : VIR_CHECKPOINT_FROM_QEMU;
    case VIR_ERR_INVALID_ARG:
        return g_str_has_prefix(error->message, "definition for checkpoint")
                   ? VIR_CHECKPOINT_FROM_CHECKPOINT
                   : VIR_CHECKPOINT_FROM_DOMAIN;
    case VIR_ERR_OPERATION_INVALID:
        return VIR_CHECKPOINT_FROM_DOMAIN;
    default:
        return VIR_CHECKPOINT_FROM_QEMU;
    }
}

/**
 * A checkpoint of libvirt's own is redefined.  That its parent is one of ours libvirt
 * cannot know: it is asked for one without a parent.
 */
static void
virCheckpointDispatchRedefineTheirs(virCheckpointCall *call,
                                    const virCheckpointProtoDomainTextFlags *args,
                                    const gchar *uuid)
{
    g_autoptr(virCheckpointDef) def =
        virCheckpointDefParse(args->text, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, NULL);
    virCheckpointProtoDomainTextFlags ask = *args;
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_autofree gchar *text = NULL;

    if (!def || !def->parent ||
        !virCheckpointEngineHas(call->engine, uuid, def->parent)) {
        virCheckpointCallForward(call);
        return;
    }
    g_clear_pointer(&def->parent, g_free);
    text = virCheckpointDefFormat(def, 0);
    ask.text = text;
    answer = virCheckpointCallAsk(virCheckpointProtoDomainTextFlags, call,
                                  call->frame->procedure, &ask);
    if (answer)
        virCheckpointCallPass(call, answer);
}

void
virCheckpointDispatchCheckpointCreate(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autofree gchar *name = NULL;
    g_autoptr(GError) error = NULL;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                 &args)) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    {
        virCheckpointProtoDomainTextFlags ask = args;

        ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
        if (!virCheckpointRightsAsk(virCheckpointProtoDomainTextFlags, call,
                                    VIR_CHECKPOINT_PROC_CHECKPOINT_CREATE_XML, &ask,
                                    virCheckpointRightsCheckpointXml))
            return;
    }
    if (virCheckpointEngineCreate(call->engine, uuid, args.text, args.flags, &name,
                                  &error)) {
        virCheckpointDispatchReplyCheckpoint(call, &args.dom, name);
        return;
    }
    if ((args.flags & VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE) &&
        error->code == VIR_ERR_NO_DOMAIN_CHECKPOINT) {
        virCheckpointDispatchRedefineTheirs(call, &args, uuid);
        return;
    }
    virCheckpointCallFailError(call, virCheckpointDispatchCreateFrom(error), error);
}

/**
 * A call that names a checkpoint which is none of ours is libvirt's, unless the name is
 * one under which libvirt knows ours for a moment: clients never learn of those.
 */
static void
virCheckpointDispatchNotOurs(virCheckpointCall *call, const gchar *name)
{
    if (virCheckpointBackupIsOurName(name))
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU,
                              VIR_ERR_NO_DOMAIN_CHECKPOINT,
                              "no domain checkpoint with matching name '%s'", name);
    else
        virCheckpointCallForward(call);
}

/**
 * virCheckpointDispatchNamedBegin:
 * @args: zeroed; decoded from the call
 *
 * Returns: TRUE if the call names a checkpoint of ours and the client may make it;
 * else the call was answered or passed on.
 */
static gboolean
virCheckpointDispatchNamedBegin(virCheckpointCall *call,
                                virCheckpointProtoCheckpointFlags *args,
                                gchar uuid[VIR_CHECKPOINT_UUID_TEXT])
{
    virCheckpointProtoCheckpointFlags ask;

    if (!virCheckpointCallDecode(virCheckpointProtoCheckpointFlags, call->frame,
                                 args)) {
        virCheckpointCallForward(call);
        return FALSE;
    }
    virCheckpointWireUuidFormat(args->checkpoint.dom.uuid, uuid);
    if (!virCheckpointEngineHas(call->engine, uuid, args->checkpoint.name)) {
        virCheckpointDispatchNotOurs(call, args->checkpoint.name);
        return FALSE;
    }
    ask = *args;
    ask.checkpoint.name = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_NAME;
    return virCheckpointRightsAsk(virCheckpointProtoCheckpointFlags, call,
                                  call->frame->procedure, &ask,
                                  virCheckpointRightsCheckpointName);
}

void
virCheckpointDispatchCheckpointGetXml(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCheckpointFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autofree gchar *xml = NULL;
    g_autoptr(GError) error = NULL;
    virCheckpointProtoText reply;

    if (!virCheckpointDispatchNamedBegin(call, &args, uuid))
        return;
    if (!virCheckpointEngineGetXml(call->engine, uuid, args.checkpoint.name, args.flags,
                                   &xml, &error)) {
        virCheckpointCallFailError(call,
                                   error->code == VIR_ERR_OPERATION_INVALID
                                       ? VIR_CHECKPOINT_FROM_DOMAIN
                                       : VIR_CHECKPOINT_FROM_QEMU,
                                   error);
        return;
    }
    reply.text = xml;
    virCheckpointCallReply(virCheckpointProtoText, call, &reply);
}

void
virCheckpointDispatchCheckpointDelete(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCheckpointFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;

    if (!virCheckpointDispatchNamedBegin(call, &args, uuid))
        return;
    if (virCheckpointEngineDelete(call->engine, uuid, args.checkpoint.name, args.flags,
                                  &error))
        virCheckpointCallReplyVoid(call);
    else
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
}

static const virCheckpointEngineEntry *
virCheckpointDispatchFind(GPtrArray *entries, const gchar *name)
{
    guint i;

    for (i = 0; i < entries->len; i++) {
        const virCheckpointEngineEntry *entry = g_ptr_array_index(entries, i);

        if (g_str_equal(entry->name, name))
            return entry;
    }
    return NULL;
}

void
virCheckpointDispatchCheckpointParent(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCheckpointFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) error = NULL;
    const virCheckpointEngineEntry *entry;

    if (!virCheckpointDispatchNamedBegin(call, &args, uuid))
        return;
    if (!(entries = virCheckpointEngineList(call->engine, uuid, &error))) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        return;
    }
    entry = virCheckpointDispatchFind(entries, args.checkpoint.name);
    if (entry && entry->parent)
        virCheckpointDispatchReplyCheckpoint(call, &args.checkpoint.dom, entry->parent);
    else
        virCheckpointCallFail(
            call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_NO_DOMAIN_CHECKPOINT,
            "checkpoint '%s' does not have a parent", args.checkpoint.name);
}

void
virCheckpointDispatchCheckpointLookup(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    virCheckpointProtoDomainTextFlags ask;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                 &args)) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!virCheckpointEngineHas(call->engine, uuid, args.text)) {
        virCheckpointDispatchNotOurs(call, args.text);
        return;
    }
    ask = args;
    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_NAME;
    if (virCheckpointRightsAsk(virCheckpointProtoDomainTextFlags, call,
                               call->frame->procedure, &ask,
                               virCheckpointRightsCheckpointName))
        virCheckpointDispatchReplyCheckpoint(call, &args.dom, args.text);
}

/** Whether a checkpoint passes the filters for leaves. */
static gboolean
virCheckpointDispatchSelected(gboolean leaf, guint flags)
{
    return !((flags & VIR_DOMAIN_CHECKPOINT_LIST_LEAVES) && !leaf) &&
           !((flags & VIR_DOMAIN_CHECKPOINT_LIST_NO_LEAVES) && leaf);
}

/** Our checkpoints that a list wants, parents first; names borrowed from @entries. */
static GPtrArray *
virCheckpointDispatchSelect(GPtrArray *entries, const gchar *above, guint flags)
{
    g_autoptr(GHashTable) known = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) parents = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) below = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    guint i;

    for (i = 0; i < entries->len; i++) {
        const virCheckpointEngineEntry *entry = g_ptr_array_index(entries, i);

        g_hash_table_add(known, entry->name);
        if (entry->parent)
            g_hash_table_add(parents, entry->parent);
    }
    if (above)
        g_hash_table_add(below, (gpointer)above);
    for (i = 0; i < entries->len; i++) {
        const virCheckpointEngineEntry *entry = g_ptr_array_index(entries, i);
        gboolean root = !entry->parent || !g_hash_table_contains(known, entry->parent);

        if (above) {
            if (root || !g_hash_table_contains(below, entry->parent))
                continue;
            if (flags & VIR_DOMAIN_CHECKPOINT_LIST_DESCENDANTS)
                g_hash_table_add(below, entry->name);
        } else if ((flags & VIR_DOMAIN_CHECKPOINT_LIST_ROOTS) && !root) {
            continue;
        }
        if (virCheckpointDispatchSelected(!g_hash_table_contains(parents, entry->name),
                                          flags))
            g_ptr_array_add(names, entry->name);
    }
    return g_steal_pointer(&names);
}

/** Answers with @theirs (libvirt's, maybe empty) and ours behind them. */
static void
virCheckpointDispatchReplyList(virCheckpointCall *call,
                               const virCheckpointProtoDomain *given,
                               const virCheckpointProtoList *theirs,
                               GPtrArray *names,
                               gboolean needResults)
{
    g_auto(virCheckpointProtoDomainArgs) now = {0};
    g_autofree virCheckpointProtoCheckpoint *all = NULL;
    virCheckpointProtoList reply = {0};
    guint count = theirs->checkpoints.checkpoints_len;
    guint i;

    reply.ret = theirs->ret + (gint)names->len;
    if (reply.ret > VIR_CHECKPOINT_PROTO_LIST_MAX) {
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_NONE, VIR_ERR_RPC,
                              "Too many domain checkpoints '%d' for limit '%d'",
                              reply.ret, VIR_CHECKPOINT_PROTO_LIST_MAX);
        return;
    }
    if (needResults) {
        all = g_new0(virCheckpointProtoCheckpoint, (gsize)count + names->len + 1);
        for (i = 0; i < count; i++)
            all[i] = theirs->checkpoints.checkpoints_val[i];
        if (names->len > 0)
            virCheckpointCallDomain(call, given->uuid, &now);
        for (i = 0; i < names->len; i++) {
            all[count + i].name = g_ptr_array_index(names, i);
            all[count + i].dom = now.dom.name ? now.dom : *given;
        }
        reply.checkpoints.checkpoints_val = all;
        reply.checkpoints.checkpoints_len = count + names->len;
    }
    virCheckpointCallReply(virCheckpointProtoList, call, &reply);
}

void
virCheckpointDispatchCheckpointList(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoListArgs) args = {0};
    virCheckpointProtoListArgs ask;
    g_auto(virCheckpointProtoList) theirs = {0};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GError) error = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoListArgs, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    /* The call itself: libvirt's own checkpoints and the right to read in one. */
    ask = args;
    ask.need_results = 1;
    answer = virCheckpointCallAsk(virCheckpointProtoListArgs, call,
                                  call->frame->procedure, &ask);
    if (!answer)
        return;
    if (answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoList, answer, &theirs)) {
        virCheckpointCallPass(call, answer);
        return;
    }
    virCheckpointDispatchHideTheirs(&theirs);
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!(entries = virCheckpointEngineList(call->engine, uuid, &error))) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        return;
    }
    names = virCheckpointDispatchSelect(entries, NULL, args.flags);
    virCheckpointDispatchReplyList(call, &args.dom, &theirs, names,
                                   args.need_results != 0);
}

void
virCheckpointDispatchCheckpointChildren(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoChildrenArgs) args = {0};
    virCheckpointProtoChildrenArgs ask;
    const virCheckpointProtoList none = {0};
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GError) error = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoChildrenArgs, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.checkpoint.dom.uuid, uuid);
    if (!virCheckpointEngineHas(call->engine, uuid, args.checkpoint.name)) {
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.checkpoint.name = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_NAME;
    if (!virCheckpointRightsAsk(virCheckpointProtoChildrenArgs, call,
                                call->frame->procedure, &ask,
                                virCheckpointRightsCheckpointName))
        return;
    if (!(entries = virCheckpointEngineList(call->engine, uuid, &error))) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        return;
    }
    names = virCheckpointDispatchSelect(entries, args.checkpoint.name, args.flags);
    virCheckpointDispatchReplyList(call, &args.checkpoint.dom, &none, names,
                                   args.need_results != 0);
}
