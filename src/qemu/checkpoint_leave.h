/*
 * checkpoint_leave.h: what stays in the images when checkpoints' metadata goes
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_LEAVE_H
#define VIR_CHECKPOINT_LEAVE_H

#include "checkpoint_segments.h"

/**
 * virCheckpointLeaveBits:
 * @ids: records whose checkpoints a client gives up without their bits; NULL: all, and
 * then our own bitmaps are taken out of the images of a guest that is off
 *
 * For each of them and each disk of which the changes since it are known, the disk's
 * top gets a bitmap with the checkpoint's own name and all these changes, persistent
 * and recording: the form that libvirt itself gives to checkpoints.  What cannot be
 * left is told to the admin: the metadata goes anyway.  Ends the use of all records got
 * before.
 */
void
virCheckpointLeaveBits(virCheckpointSegments *segments, GPtrArray *ids);

/** TRUE if the image at the top of each disk that @def covers has a sound bitmap by
 * which libvirt would take the checkpoint; else CHECKPOINT_INCONSISTENT in its words.
 */
gboolean
virCheckpointLeaveFound(virCheckpointSegments *segments,
                        const virCheckpointDef *def,
                        GError **error);

#endif
