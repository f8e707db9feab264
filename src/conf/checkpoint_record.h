/*
 * checkpoint_record.h: what the store keeps of one checkpoint
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_RECORD_H
#define VIR_CHECKPOINT_RECORD_H

#include "checkpoint_def.h"

typedef enum {
    VIR_CHECKPOINT_RECORD_CREATING, /* the transaction may or may not have run */
    VIR_CHECKPOINT_RECORD_READY,
    VIR_CHECKPOINT_RECORD_DELETING, /* its bits are being handed to the previous one */
    VIR_CHECKPOINT_RECORD_LAST
} virCheckpointRecordState;

/**
 * virCheckpointSegment:
 * The changes of one disk from one checkpoint to the next that covers that disk: the
 * OR of its parts.  Parts are sidecar files (frozen bits, complete when listed) and
 * bitmaps still in the image or in QEMU.
 *
 * Of the segments of a disk only the newest has an active bitmap, the last of its
 * @bitmaps; whether a segment is the newest is derived from the tree, never stored.
 */
typedef struct virCheckpointSegment {
    gchar *target; /* disk target, "vda" */
    gchar *born;   /* absolute path of the image file in which the last of @bitmaps was
                      made */
    guint64 sizeBytes;   /* virtual size of the disk then */
    guint64 granularity; /* bytes */
    gboolean lost; /* changes of unknown extent are missing: unusable until healed */
    /* The guest is off and its image was opened read-write: all bits of bitmap @kept
     * are in sidecars, as long as the image's file still looks like @stamp. */
    gchar *kept;  /* or NULL */
    gchar *stamp; /* or NULL: nothing tells whether the file was written to */
    /* A file that a copy of ours made the disk as of this checkpoint, for as long as it
     * looks like @replicaStamp. */
    gchar *replica; /* absolute path, or NULL */
    gchar *replicaStamp;
    GPtrArray
        *bitmaps; /* gchar*: bitmap names, each VIR_CHECKPOINT_BITMAP_PREFIX + id */
    GPtrArray
        *sidecars; /* gchar*: file names inside the domain's folder of the store */
    /* gchar*: files to which libvirt may move the disk, taking along all bits of the
     * last of @bitmaps: the layers below @born, where its copy job goes */
    GPtrArray *heirs;
} virCheckpointSegment;

#define VIR_CHECKPOINT_BITMAP_PREFIX "virtcheckpoint."

/** One checkpoint of ours. */
typedef struct virCheckpointRecord {
    gchar *id; /* 32 hex digits, unique for ever; also the file's name */
    virCheckpointRecordState state;
    virCheckpointDef *def; /* parent is def->parent; creationTime def->creationTime */
    GPtrArray *segments;   /* virCheckpointSegment*, one for each covered disk */
    gint references;       /* atomic; more than one: it is not to be changed */
} virCheckpointRecord;

virCheckpointSegment *
virCheckpointSegmentNew(const gchar *target);
virCheckpointSegment *
virCheckpointSegmentCopy(const virCheckpointSegment *segment);
void
virCheckpointSegmentFree(virCheckpointSegment *segment);
virCheckpointRecord *
virCheckpointRecordNew(void);
virCheckpointRecord *
virCheckpointRecordCopy(const virCheckpointRecord *record);
/** Returns: (transfer full): @record itself, which nobody may change then. */
virCheckpointRecord *
virCheckpointRecordRef(const virCheckpointRecord *record);
/** TRUE if others hold @record, too. */
gboolean
virCheckpointRecordIsShared(const virCheckpointRecord *record);
/** Gives one reference back. */
void
virCheckpointRecordFree(virCheckpointRecord *record);
/** @to is what @from is (gchar*). */
void
virCheckpointSegmentSetNames(GPtrArray *to, const GPtrArray *from);
/** Returns: (nullable): the segment of disk @target, borrowed. */
virCheckpointSegment *
virCheckpointRecordSegment(const virCheckpointRecord *record, const gchar *target);
/** Returns: (transfer full): 32 random hex digits. */
gchar *
virCheckpointRecordNewId(void);

const gchar *
virCheckpointRecordStateToString(virCheckpointRecordState state);
gchar *
virCheckpointRecordFormat(const virCheckpointRecord *record);
/** Parses and checks: ids, bitmap prefix, sidecar names without '/', known version. */
virCheckpointRecord *
virCheckpointRecordParse(const gchar *xml, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSegment, virCheckpointSegmentFree)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointRecord, virCheckpointRecordFree)

#endif
