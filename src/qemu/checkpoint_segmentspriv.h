/*
 * checkpoint_segmentspriv.h: what the parts of the segments module share
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SEGMENTSPRIV_H
#define VIR_CHECKPOINT_SEGMENTSPRIV_H

#include "checkpoint_segments.h"

/** The top format node of disk @target; NULL if the domain has no such disk or medium
 * now. */
const virCheckpointNode *
virCheckpointSegmentsFindTop(virCheckpointSegments *segments, const gchar *target);

/** As virCheckpointTreeNewest(), which is asked once per disk and refresh. */
virCheckpointRecord *
virCheckpointSegmentsNewest(virCheckpointSegments *segments, const gchar *target);

/** The active bitmap of a disk's newest segment, or NULL. */
const gchar *
virCheckpointSegmentActive(const virCheckpointSegment *segment);

/** TRUE if bitmap @name is the active one of disk @target's newest segment: it records,
 * whichever other record names it, too, because a deletion did not end. */
gboolean
virCheckpointSegmentsIsRecording(virCheckpointSegments *segments,
                                 const gchar *target,
                                 const gchar *name);

/** The same, and @record, one of whose segments is @segment, is the newest. */
gboolean
virCheckpointSegmentsIsActive(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const virCheckpointSegment *segment,
                              const gchar *name);

/**
 * The layers that hold live parts of @segment: from @top down to the one where it was
 * born, and on as long as they have @bitmap, or with NULL one of its bitmaps: one that
 * it took over may reach further down than the others.  When it was born in none of the
 * chain: @top, and on.
 * Returns: (transfer container): const virCheckpointNode*
 */
GPtrArray *
virCheckpointSegmentsLayers(virCheckpointSegments *segments,
                            const virCheckpointNode *top,
                            const virCheckpointSegment *segment,
                            const gchar *bitmap);

/** Present, persistent, recording and consistent on @top, and consistent on its layers.
 */
gboolean
virCheckpointSegmentsIsHealthy(virCheckpointSegments *segments,
                               const virCheckpointNode *top,
                               const virCheckpointSegment *segment);

/**
 * Writes into the journal that nothing will ever need bitmap @name again: whoever finds
 * it removes it.  Call before the last record that names it stops doing so.
 */
gboolean
virCheckpointSegmentsRelease(virCheckpointSegments *segments,
                             const gchar *name,
                             GError **error);

/** The same of several (gchar*), in one write. */
gboolean
virCheckpointSegmentsReleaseAll(virCheckpointSegments *segments,
                                GPtrArray *names,
                                GError **error);

/** Refreshes @segments, and removes released bitmaps from nodes that can be written.
 * Failures are logged only. */
void
virCheckpointSegmentsSweep(virCheckpointSegments *segments);
/** The same by what @segments show already. */
void
virCheckpointSegmentsSweepSeen(virCheckpointSegments *segments);

/** A segment whose tracking seems to be lost, by some criterion. */
typedef gboolean (*virCheckpointSegmentsSeemsLostFunc)(
    virCheckpointSegments *segments,
    const virCheckpointRecord *record,
    const virCheckpointSegment *segment);

/**
 * Before anything is called lost: for each disk for which @seemsLost waits until
 * libvirt has no job on it, and refreshes @segments.  FALSE when a job goes on for too
 * long.
 */
gboolean
virCheckpointSegmentsConfirm(virCheckpointSegments *segments,
                             virCheckpointSegmentsSeemsLostFunc seemsLost,
                             GError **error);

/** Tells the admin that @record's segment of disk @target is lost. */
void
virCheckpointSegmentsWarnLost(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const gchar *target);

/** TRUE if @top can hold a persistent bitmap; a guest that is off has its images open
 * read-only until one is changed. */
gboolean
virCheckpointSegmentsCanTrack(const virCheckpointSegments *segments,
                              const virCheckpointNode *top);

/** TRUE if a disk's top has a bitmap of this store's that is needed by no record that
 * is known. */
gboolean
virCheckpointSegmentsHasUnnamed(virCheckpointSegments *segments);

/** TRUE if bitmap @name has our prefix, and this store did not make it. */
gboolean
virCheckpointSegmentsIsForeign(virCheckpointSegments *segments, const gchar *name);

/** TRUE if @node holds a bitmap of ours that was released. */
gboolean
virCheckpointSegmentsNodeHasReleased(virCheckpointSegments *segments,
                                     const virCheckpointNode *node);

/** Bitmaps are about to be released in images, or the last checkpoint is about to go:
 * the folder stays, and says so, until images were swept. */
void
virCheckpointSegmentsAwaitSweep(virCheckpointSegments *segments);
/** TRUE if released bitmaps may still be in images. */
gboolean
virCheckpointSegmentsWaitsForSweep(virCheckpointSegments *segments);
/** None is: what @segments show was read from images that nobody has open. */
void
virCheckpointSegmentsSwept(virCheckpointSegments *segments);

/** Copies the bits of bitmap @name on @top into a new sidecar of @segment, which the
 * caller saves. */
gboolean
virCheckpointSegmentsCopy(virCheckpointSegments *segments,
                          virCheckpointSegment *segment,
                          const virCheckpointNode *top,
                          const gchar *name,
                          GError **error);

/** Adds the live parts of @segment to @sources (virCheckpointBitmapRef): on its layers,
 * but only on those at or below @node when that is one of the chain.  FALSE if a frozen
 * part is gone. */
gboolean
virCheckpointSegmentsCollect(virCheckpointSegments *segments,
                             const virCheckpointNode *top,
                             const virCheckpointNode *node,
                             const virCheckpointSegment *segment,
                             GArray *sources);

/**
 * virCheckpointSegmentsEdit:
 * The one of @segments' records with the id of @record, to be changed.  As long as it
 * is the store's own a copy takes its place: pointers to what was there stay good until
 * a refresh, but show the old state.
 */
virCheckpointRecord *
virCheckpointSegmentsEdit(virCheckpointSegments *segments,
                          const virCheckpointRecord *record);

/** @record, which is none of @segments' own, was saved: a copy of it is among them. */
void
virCheckpointSegmentsSaved(virCheckpointSegments *segments,
                           const virCheckpointRecord *record);
/** @record, one of @segments' own, was removed from the store. */
void
virCheckpointSegmentsRemoved(virCheckpointSegments *segments,
                             virCheckpointRecord *record);

/** A new bitmap name, in the journal. */
gchar *
virCheckpointSegmentsNewName(virCheckpointSegments *segments, GError **error);

/** The granularity that a new bitmap on @node gets: QEMU's default, made coarser for
 * huge disks. */
guint64
virCheckpointSegmentsGranularity(const virCheckpointNode *node);

/** The record of a creation as it will be, CREATING, not saved: @def completed, a
 * segment with a new bitmap name per disk. */
virCheckpointRecord *
virCheckpointSegmentsPlan(virCheckpointSegments *segments,
                          const virCheckpointDef *def,
                          GError **error);

/** Every disk's newest segment is lost, its bitmaps go. */
gboolean
virCheckpointSegmentsGiveUp(virCheckpointSegments *segments, GError **error);

/** A file name for a sidecar with the bits of bitmap @name that is not taken. */
gchar *
virCheckpointParkFileName(virCheckpointSegments *segments,
                          const gchar *name,
                          GError **error);

/** checkpoint_park_ahead.c */
typedef struct virCheckpointParkAhead virCheckpointParkAhead;
void
virCheckpointParkAheadFree(virCheckpointParkAhead *ahead);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointParkAhead, virCheckpointParkAheadFree)

/** Opens sidecars for what the creation of @record freezes, as far as that is simple.
 * Failures are no errors: parking then does it all. */
void
virCheckpointSegmentsParkAhead(virCheckpointSegments *segments,
                               const virCheckpointRecord *record);
/** Closes and removes them. */
void
virCheckpointSegmentsParkAheadDrop(virCheckpointSegments *segments);
/** Adds to the creation's transaction @txn what fills them; FALSE: there are none. */
gboolean
virCheckpointSegmentsParkAheadFill(virCheckpointSegments *segments,
                                   virCheckpointTxn *txn);
/** *@taken: they are @parts (virCheckpointSidecarPart*), and are complete now.  What is
 * not taken is closed and removed. */
gboolean
virCheckpointSegmentsParkAheadTake(virCheckpointSegments *segments,
                                   GPtrArray *parts,
                                   gboolean *taken,
                                   GError **error);

/** The transaction of @record's creation on the disks as they are: per disk add, then
 * disable the previous. */
virCheckpointTxn *
virCheckpointSegmentsCreateTxn(virCheckpointSegments *segments,
                               const virCheckpointRecord *record);

/** How many of @record's disks have its bitmap recording on top. */
guint
virCheckpointSegmentsCountCreated(virCheckpointSegments *segments,
                                  const virCheckpointRecord *record);

/** Finishes a deletion whose record says DELETING. */
gboolean
virCheckpointSegmentsFinishDelete(virCheckpointSegments *segments,
                                  const gchar *id,
                                  GError **error);

#endif
