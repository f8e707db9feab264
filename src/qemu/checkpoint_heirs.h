/*
 * checkpoint_heirs.h: to which files libvirt may move a disk with all of its bits
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEIRS_H
#define VIR_CHECKPOINT_HEIRS_H

#include "checkpoint_segmentspriv.h"

/** Fills @heirs (gchar*): where commits and the copy that runs, if there is one, take a
 * bitmap that was made on @top, the disk's. */
void
virCheckpointHeirsFind(const virCheckpointSegments *segments,
                       const gchar *target,
                       const virCheckpointNode *top,
                       GPtrArray *heirs);

/** Records what virCheckpointHeirsFind() finds now, of all disks; parked is what can
 * be. */
gboolean
virCheckpointHeirsNote(virCheckpointSegments *segments, GError **error);

/**
 * virCheckpointHeirsExplain:
 * The file in which the bitmap of @segment was made is gone, and @top has a healthy
 * one. Returns: TRUE if all of its bits must be in that.  May wait two seconds for an
 * event.
 */
gboolean
virCheckpointHeirsExplain(const virCheckpointSegments *segments,
                          const virCheckpointSegment *segment,
                          const virCheckpointNode *top);

/** All is known of the disk of @segment now, whose bitmap is in the chain. */
void
virCheckpointHeirsLooked(const virCheckpointSegments *segments,
                         const virCheckpointSegment *segment);

/** The bitmaps of @record, which was just made, record on the disks of a guest that
 * runs: whatever happens to these from now on is seen. */
void
virCheckpointHeirsBegin(const virCheckpointSegments *segments,
                        const virCheckpointRecord *record);

/** Opens the file in which the active bitmap of disk @target was made: a copy is ready
 * and may pivot at any moment.  Blocks as far as opening a file does. */
void
virCheckpointHeirsHold(const gchar *uuid, const gchar *target);

/** Returns: (transfer full): a path to the file that was opened, for this process; NULL
 * if there is none. */
gchar *
virCheckpointHeirsHeld(const virCheckpointSegments *segments, const gchar *target);

/** A job (virDomainBlockJobType) of somebody else's changed state.  Thread: any, as
 * what follows. */
void
virCheckpointHeirsJobEvent(const gchar *uuid, const gchar *target, gint type);
/** The guest ended: its images may be moved until it starts. */
void
virCheckpointHeirsWasOff(const gchar *uuid);
/** The guest came from another host, maybe with its images. */
void
virCheckpointHeirsArrived(const gchar *uuid);
/** Nothing is known since the last looks. */
void
virCheckpointHeirsEventsMissed(void);

#endif
