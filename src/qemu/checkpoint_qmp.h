/*
 * checkpoint_qmp.h: typed transactions, and the rules no command may break
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_QMP_H
#define VIR_CHECKPOINT_QMP_H

#include "checkpoint_monitor.h"

/** A transaction being built: typed steps in order. */
typedef struct virCheckpointTxn virCheckpointTxn;

typedef enum {
    VIR_CHECKPOINT_BITMAP_PERSISTENT = 1 << 0,
    VIR_CHECKPOINT_BITMAP_DISABLED = 1 << 1,
} virCheckpointBitmapFlags;

/** A bitmap on a node. */
typedef struct virCheckpointBitmapRef {
    const gchar *node;
    const gchar *name;
} virCheckpointBitmapRef;

virCheckpointTxn *
virCheckpointTxnNew(void);
void
virCheckpointTxnFree(virCheckpointTxn *txn);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointTxn, virCheckpointTxnFree)
/** @granularity 0: QEMU's default. */
void
virCheckpointTxnAdd(virCheckpointTxn *txn,
                    const gchar *node,
                    const gchar *name,
                    guint64 granularity,
                    guint flags);
void
virCheckpointTxnDisable(virCheckpointTxn *txn, const gchar *node, const gchar *name);
void
virCheckpointTxnRemove(virCheckpointTxn *txn, const gchar *node, const gchar *name);
/** @sources: GArray of virCheckpointBitmapRef; empty: no step is added (an empty merge
 * kills QEMU). */
void
virCheckpointTxnMerge(virCheckpointTxn *txn,
                      const gchar *node,
                      const gchar *name,
                      GArray *sources);
/** Any other action: type and data (transfer full). */
void
virCheckpointTxnAction(virCheckpointTxn *txn,
                       const gchar *type,
                       virCheckpointJson *data);
gsize
virCheckpointTxnLength(const virCheckpointTxn *txn);
/** Sends it; nothing to do (length 0) is success without a command. The txn is left
 * empty. */
gboolean
virCheckpointTxnRun(virCheckpointTxn *txn,
                    virCheckpointMonitor *monitor,
                    GError **error);

/**
 * virCheckpointQmpCheck: the rules of docs/internals/rules.md on one command
 * Refuses (VIR_ERR_INTERNAL_ERROR, naming the rule): an empty merge;
 * block-dirty-bitmap-enable; blockdev-set-active; blockdev-reopen; migrate with exec:.
 * Called by virCheckpointMonitorRun for every command.
 */
gboolean
virCheckpointQmpCheck(const gchar *command,
                      const virCheckpointJson *arguments,
                      GError **error);

#endif
