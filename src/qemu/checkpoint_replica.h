/*
 * checkpoint_replica.h: which file holds the disk as of which checkpoint
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_REPLICA_H
#define VIR_CHECKPOINT_REPLICA_H

#include "checkpoint_segments.h"

/** A copy has ended well: its target, closed and on stable storage, holds the disk as
 * of the checkpoint that was made with it.  Noted in that one's record if it does and
 * if it is a file; a failure is logged only. */
void
virCheckpointReplicaNote(virCheckpointStoreDomain *store,
                         const virCheckpointJobRecord *job);

/**
 * virCheckpointReplicaFind:
 * @path: or NULL
 *
 * Returns: (transfer none): the record of the checkpoint as of which @path holds disk
 * @target, and has not been written to since; VIR_ERR_INVALID_ARG if nobody can tell.
 */
virCheckpointRecord *
virCheckpointReplicaFind(GPtrArray *records,
                         const gchar *target,
                         const gchar *path,
                         GError **error);

/** What the file looks like: changes when it is written to.  NULL for all but plain
 * files. */
gchar *
virCheckpointReplicaStamp(const gchar *path);

#endif
