/*
 * checkpoint_offline_witness.h: what images look like while a storage daemon writes
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OFFLINE_WITNESS_H
#define VIR_CHECKPOINT_OFFLINE_WITNESS_H

#include <glib.h>

typedef struct virCheckpointOfflineWitness virCheckpointOfflineWitness;

/**
 * virCheckpointOfflineWitnessNew:
 * @lockFd: the lock of the domain's folder, borrowed, open for longer than this
 * @paths: gchar*: top images, plain files; others are left out
 *
 * From now on each look of the images that is the storage daemon's work is written to
 * the lock's file: what was there before is taken out of it.
 * Thread: a thread of its own, until virCheckpointOfflineWitnessFree().
 */
virCheckpointOfflineWitness *
virCheckpointOfflineWitnessNew(int lockFd, GPtrArray *paths);
/** Where the number of the storage daemon's process is to be put as soon as it runs. */
gint *
virCheckpointOfflineWitnessPid(virCheckpointOfflineWitness *witness);
/** Ends it; what was written stays. */
void
virCheckpointOfflineWitnessFree(virCheckpointOfflineWitness *witness);

/** TRUE if @stamp (of virCheckpointOfflineStamp()) is what the storage daemon made. */
gboolean
virCheckpointOfflineWitnessed(int lockFd, const gchar *stamp);

#endif
