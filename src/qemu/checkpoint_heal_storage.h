/*
 * checkpoint_heal_storage.h: a disk and a replica of it, open for comparing
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEAL_STORAGE_H
#define VIR_CHECKPOINT_HEAL_STORAGE_H

#include "checkpoint_heal_scan.h"
#include "checkpoint_segments.h"

/** Where the bits of what differs are gathered. */
#define VIR_CHECKPOINT_HEAL_NODE "virtcheckpoint-heal"
#define VIR_CHECKPOINT_HEAL_BITMAP "found"

typedef struct virCheckpointHealStorage {
    virCheckpointMonitor *monitors[2]; /* of the disk; of the replica and the bits */
    virCheckpointMap *maps[2];         /* or NULL */
    virCheckpointScan *scan;
    guint64 sizeBytes;
    guint64 granularity;  /* of the bits */
    guint64 clusterBytes; /* the largest in the disk's chain, or 0 */
} virCheckpointHealStorage;

/**
 * virCheckpointHealReplica:
 * @xml: a <disk>, as blockcopy's --xml takes it
 * @path: (out) (transfer full): its image's path; NULL if it has none
 *
 * Returns: (transfer full): a domain XML with only that disk, as 'replica'.
 */
gchar *
virCheckpointHealReplica(const gchar *xml, gchar **path, GError **error);

/**
 * virCheckpointHealStorageOpen:
 * @store: where the sockets are for a moment; @replica: of virCheckpointHealReplica()
 *
 * The disk is opened past the locks of whoever has it; the replica's image is locked
 * against writers as long as this is open.  VIR_ERR_INVALID_ARG: sizes differ.
 */
virCheckpointHealStorage *
virCheckpointHealStorageOpen(virCheckpointStoreDomain *store,
                             const virCheckpointDomainView *view,
                             const gchar *target,
                             const gchar *replica,
                             guint64 granularity,
                             GError **error);
/** All bits are there: nothing is recorded any more. */
gboolean
virCheckpointHealStorageFreeze(virCheckpointHealStorage *storage, GError **error);
void
virCheckpointHealStorageFree(virCheckpointHealStorage *storage);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointHealStorage, virCheckpointHealStorageFree)

#endif
