/*
 * checkpoint_replica.c: which file holds the disk as of which checkpoint
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a copy that finished with a checkpoint leaves a file of which we know what it
 * holds, as long as nobody writes to it; its inode, size and time of change tell.  It
 * is noted with the checkpoint and goes with it.  A mirror that was broken off later
 * than its checkpoint holds a later moment, so that is not noted.
 *
 * The target of a copy of a running guest is a moment later than its checkpoint.  What
 * was written in between is among the checkpoint's own sidecars, parked by the copy.
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_replica.h"
#include "checkpoint_stamp.h"

gchar *
virCheckpointReplicaStamp(const gchar *path)
{
    return virCheckpointStampLookPath(path, 0);
}

void
virCheckpointReplicaNote(virCheckpointStoreDomain *store,
                         const virCheckpointJobRecord *job)
{
    g_autoptr(GPtrArray) records = NULL;
    g_autofree gchar *stamp = virCheckpointReplicaStamp(job->destPath);
    virCheckpointRecord *record = NULL;
    virCheckpointSegment *segment = NULL;
    g_autoptr(GError) error = NULL;

    if (!stamp || !job->finish || !job->checkpointId)
        return;
    if ((records = virCheckpointStoreList(store, &error)))
        record = virCheckpointTreeById(records, job->checkpointId);
    if (record)
        segment = virCheckpointRecordSegment(record, job->target);
    if (segment) {
        g_free(segment->replica);
        segment->replica = g_strdup(job->destPath);
        g_free(segment->replicaStamp);
        segment->replicaStamp = g_steal_pointer(&stamp);
        virCheckpointStoreSave(store, record, &error);
    }
    if (error)
        g_info("what '%s' holds is not noted: %s", job->destPath, error->message);
}

virCheckpointRecord *
virCheckpointReplicaFind(GPtrArray *records,
                         const gchar *target,
                         const gchar *path,
                         GError **error)
{
    g_autofree gchar *stamp = virCheckpointReplicaStamp(path);
    gboolean changed = FALSE;
    guint i;

    for (i = 0; stamp && i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(record, target);

        if (!segment || g_strcmp0(segment->replica, path) != 0)
            continue;
        if (g_strcmp0(segment->replicaStamp, stamp) == 0)
            return record;
        changed = TRUE;
    }
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                "%s: say with 'checkpoint' which one the replica holds",
                changed ? "the replica was written to since a copy of ours made it"
                        : "this replica was not made by a copy with a checkpoint");
    return NULL;
}
