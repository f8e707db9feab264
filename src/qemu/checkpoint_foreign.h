/*
 * checkpoint_foreign.h: checkpoints that libvirt itself made, as the base of a copy
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_FOREIGN_H
#define VIR_CHECKPOINT_FOREIGN_H

#include "checkpoint_segments.h"

/**
 * virCheckpointForeignBitmap:
 * @name: a checkpoint that is none of ours; @target: disk
 *
 * Returns: (transfer full): the bitmap that libvirt's own checkpoint has on the disk,
 * seen whole.  Errors: NO_DOMAIN_CHECKPOINT if libvirt has no such checkpoint or it
 * does not cover the disk; CHECKPOINT_INCONSISTENT naming domain, disk, checkpoint and
 * remedy.  Thread: any; asks libvirt.  Changes nothing.
 */
gchar *
virCheckpointForeignBitmap(virCheckpointSegments *segments,
                           const gchar *name,
                           const gchar *target,
                           GError **error);

/**
 * As virCheckpointSegmentsSince(), with the changes since libvirt's checkpoint @name:
 * on @node there is bitmap @work afterwards, transient and recording.
 */
gboolean
virCheckpointForeignSince(virCheckpointSegments *segments,
                          const gchar *name,
                          const gchar *target,
                          const gchar *node,
                          const gchar *work,
                          GError **error);

/**
 * virCheckpointForeignCarry:
 * @from: the layer of the disk from which on, downwards, a copy has left bits behind
 * @file: the copy's image, open in QEMU
 *
 * A shallow copy onto an image that holds already what is below takes the bits of the
 * top along only.  After it the image has every sound bitmap of others that is on the
 * disk's top, with the bits of @from and below.  An image that can hold none is left
 * alone.
 */
gboolean
virCheckpointForeignCarry(virCheckpointSegments *segments,
                          const gchar *target,
                          const gchar *from,
                          const gchar *file,
                          GError **error);

#endif
