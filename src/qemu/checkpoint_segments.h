/*
 * checkpoint_segments.h: parking, the since-set and the invariant of one domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SEGMENTS_H
#define VIR_CHECKPOINT_SEGMENTS_H

#include "checkpoint_domain.h"
#include "checkpoint_sidecar.h"
#include "checkpoint_tree.h"

/** What to do about lost changes; of the domain's name and the disk's target. */
#define VIR_CHECKPOINT_REMEDY                                                          \
    "heal it with 'virsh checkpoint-check %s --heal --disk %s --against REPLICA.xml'," \
    " or create a new checkpoint and make a full copy"

/*
 * Everything an operation on one domain's segments works on; the caller holds the
 * domain's slot (store) and keeps @records fresh.
 */
typedef struct virCheckpointSegments {
    virCheckpointStoreDomain *store; /* borrowed */
    virCheckpointDomainView *view;   /* borrowed */
    virCheckpointGraph *graph;       /* owned; Refresh replaces it */
    gboolean brief;     /* disks without layers are looked at alone, in one question:
                           nodes that are no disk's are not seen then */
    GPtrArray *records; /* owned; Refresh replaces it; not to be changed but
                           through virCheckpointSegmentsEdit() */
    gchar *unread;      /* owned; why a record that is there is not among them, or NULL;
                           Refresh replaces it */
    GPtrArray *replaced; /* owned; records that were, until Refresh */
    GHashTable *newest;  /* owned; target -> its newest record, as far as asked */
    struct virCheckpointParkAhead *ahead; /* owned; sidecars that a creation opened, for
                                             the parking that follows it; or NULL */
    gboolean awaited;   /* bitmaps are released in these, and none were before */
    gboolean refused;   /* a creation was, for what was asked: nothing was begun */
    gboolean unswept;   /* something of ours that nobody needs is left in QEMU, or the
                           guest frozen, because its removal failed: to be settled */
    GPtrArray *covered; /* borrowed; parts that sets since a checkpoint leave out: their
                           bits are known from elsewhere; usually NULL */
} virCheckpointSegments;

virCheckpointSegments *
virCheckpointSegmentsNew(virCheckpointStoreDomain *store,
                         virCheckpointDomainView *view,
                         GError **error);
/** The same, brief: for what only concerns the disks' own bitmaps. */
virCheckpointSegments *
virCheckpointSegmentsNewBrief(virCheckpointStoreDomain *store,
                              virCheckpointDomainView *view,
                              GError **error);
/** The same, by a look that was just made: @graph is taken out of its holder. */
virCheckpointSegments *
virCheckpointSegmentsNewSeen(virCheckpointStoreDomain *store,
                             virCheckpointDomainView *view,
                             virCheckpointGraph **graph,
                             GError **error);
gboolean
virCheckpointSegmentsRefresh(virCheckpointSegments *segments, GError **error);
void
virCheckpointSegmentsFree(virCheckpointSegments *segments);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSegments, virCheckpointSegmentsFree)

/** The top format node of disk @target, or an error naming the disk. */
const virCheckpointNode *
virCheckpointSegmentsTop(virCheckpointSegments *segments,
                         const gchar *target,
                         GError **error);

/**
 * Parks every frozen part of every disk: bitmaps of ours that are not the active one,
 * and the copies of the active one on layers below the top (frozen by an external
 * snapshot).  What cannot be parked stays listed; a warning says why.  @target: one
 * disk only, or NULL. Returns FALSE if anything was left.
 */
gboolean
virCheckpointSegmentsPark(virCheckpointSegments *segments,
                          const gchar *target,
                          GError **error);

/** The same for all disks, as the last thing that is done with @segments, which are
 * fresh: QEMU is not asked how it looks before and afterwards.  Failures are logged.
 * Returns FALSE if one of them leaves the domain unsettled; what somebody's job keeps
 * is none, the job's end settles. */
gboolean
virCheckpointSegmentsParkLast(virCheckpointSegments *segments);

/**
 * FALSE, with the cause and the way out, while a record that is there could not be
 * read. It may be the newest one, or one that takes part in a deletion: what would be
 * lost for good by not knowing it waits.
 */
gboolean
virCheckpointSegmentsKnowAll(const virCheckpointSegments *segments, GError **error);
/** FALSE if by the last look the invariant does not hold for some disk.  Decides
 * nothing: for that one looks again. */
gboolean
virCheckpointSegmentsSeemTracked(virCheckpointSegments *segments);
/** Checks the invariant; where it does not hold the segment is recorded lost, then
 * tracking starts anew and inconsistent bitmaps of ours are removed. */
gboolean
virCheckpointSegmentsEnsure(virCheckpointSegments *segments, GError **error);

/**
 * virCheckpointSegmentsSince:
 * @record: the base checkpoint; @target: disk; @node: node on which to make the bitmap
 * (the disk's top or, below an overlay, S's node; same size)
 * @name: name of the transient bitmap to make; ENABLED when @enabled, so that it
 * records on from now
 *
 * After it @name on @node holds every change of the disk since @record: sidecars and
 * live parts on every layer at or below the top.  VIR_ERR_CHECKPOINT_INCONSISTENT
 * naming domain, disk, checkpoint and remedy when a segment is lost.
 */
gboolean
virCheckpointSegmentsSince(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const gchar *target,
                           const gchar *node,
                           const gchar *name,
                           gboolean enabled,
                           GError **error);

/**
 * virCheckpointSegmentsParts:
 * Returns: (transfer full): GPtrArray of gchar*: the sidecars that hold changes of disk
 * @target since @record now, each as a text that no other file of its name gets.
 */
GPtrArray *
virCheckpointSegmentsParts(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const gchar *target);

/** As virCheckpointSegmentsSince(), on the disk's top, and in the form in which libvirt
 * takes a bitmap of its own: persistent, recording. */
gboolean
virCheckpointSegmentsMaterialise(virCheckpointSegments *segments,
                                 const virCheckpointRecord *record,
                                 const gchar *target,
                                 const gchar *name,
                                 GError **error);

/**
 * TRUE if every part of the changes of disk @target since @record is there and sound:
 * live bitmaps, and sidecars as read by our own reader.  The domain runs.  Else
 * VIR_ERR_CHECKPOINT_INCONSISTENT, as of virCheckpointSegmentsSince().
 */
gboolean
virCheckpointSegmentsValidate(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const gchar *target,
                              GError **error);

/** How a checkpoint is created. */
typedef enum {
    /* between freeze and thaw of the guest's file systems; libvirt's error where there
     * is no agent */
    VIR_CHECKPOINT_SEGMENTS_QUIESCE = 1 << 0,
} virCheckpointSegmentsCreateFlags;

/**
 * Creates a checkpoint: @def aligned (checkpoint_def.h), parent and time set here.
 * Record, transaction, invariant, record; previous segments are not parked yet, but
 * prepared for it: virCheckpointSegmentsPark() of the same @segments comes next.
 * @segments was just made or refreshed, and shows what is there when it returns TRUE:
 * each look at QEMU costs a client's time.
 * @flags: virCheckpointSegmentsCreateFlags
 * @record: (out) (transfer full) (optional)
 */
gboolean
virCheckpointSegmentsCreate(virCheckpointSegments *segments,
                            const virCheckpointDef *def,
                            guint flags,
                            virCheckpointRecord **record,
                            GError **error);
/** Deletes one checkpoint (ENGINE rules: the parts go to the previous one). Also takes
 * back one made by a job that failed. */
gboolean
virCheckpointSegmentsDelete(virCheckpointSegments *segments,
                            const gchar *id,
                            GError **error);

#endif
