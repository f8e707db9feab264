/*
 * checkpoint_offline.h: the disks of a guest that is off, in a storage daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OFFLINE_H
#define VIR_CHECKPOINT_OFFLINE_H

#include "checkpoint_segments.h"

/**
 * virCheckpointOfflineOpen:
 * @view: of a domain that is off
 * @targets: GPtrArray of gchar*: disks
 * @writable: top images read-write
 * @fds: descriptors that the daemon inherits; @writable: the lock of the domain's
 * folder
 *
 * Gives @view a storage daemon with these disks as its monitor, in place of the one
 * that it had; alias of each disk is the name of its top format node.
 * Errors: VIR_ERR_RESOURCE_BUSY when another process uses an image, what the argument
 * builder says of disks that cannot be opened, and QEMU's reason.
 */
gboolean
virCheckpointOfflineOpen(virCheckpointDomainView *view,
                         GPtrArray *targets,
                         gboolean writable,
                         const int *fds,
                         guint fdCount,
                         GError **error);

/**
 * virCheckpointOfflineOpenDisks:
 * @conn: for secrets; @disks: GPtrArray of virCheckpointStorageDisk*
 * @inherited: int: descriptors that the daemon inherits; secrets are added
 *
 * Returns: (transfer full): a storage daemon that has them open, or NULL: errors as of
 * virCheckpointOfflineOpen().
 */
virCheckpointMonitor *
virCheckpointOfflineOpenDisks(virConnectPtr conn,
                              GPtrArray *disks,
                              gboolean writable,
                              GArray *inherited,
                              GError **error);

/** What else a storage daemon is told when it starts. */
typedef struct virCheckpointOfflineService {
    gboolean
        shared; /* read images that others have open read-write, past their locks */
    const gchar *const *argv; /* further arguments, NULL-terminated, or NULL */
    gint *pid;                /* gets its process, atomically; or NULL */
} virCheckpointOfflineService;

/** As virCheckpointOfflineOpenDisks(), with more to do. */
virCheckpointMonitor *
virCheckpointOfflineServe(virConnectPtr conn,
                          GPtrArray *disks,
                          gboolean writable,
                          const virCheckpointOfflineService *service,
                          GArray *inherited,
                          GError **error);

/** Ends the storage daemon; its images are closed when this returns. */
void
virCheckpointOfflineClose(virCheckpointDomainView *view);

/** What tells that nobody has written to the image @path since: inode, size and times.
 * NULL for all but plain files. */
gchar *
virCheckpointOfflineStamp(const gchar *path);

/* On segments.  Each is success and does nothing while the domain runs. */

/** Opens @targets read-only, and looks. */
gboolean
virCheckpointSegmentsOpen(virCheckpointSegments *segments,
                          GPtrArray *targets,
                          GError **error);

/**
 * virCheckpointSegmentsWritable:
 * @targets: the disks that will be changed; those of all records were settled
 *
 * First parks what is frozen on these disks, then puts all bits of the active bitmaps
 * into sidecars and records that, then opens the images read-write.  Ends the use of
 * all records got before.
 */
gboolean
virCheckpointSegmentsWritable(virCheckpointSegments *segments,
                              GPtrArray *targets,
                              GError **error);

/** Bitmaps are about to be changed or were: records what the images look like now. */
gboolean
virCheckpointSegmentsRestamp(virCheckpointSegments *segments, GError **error);

/**
 * virCheckpointSegmentsReadBack:
 * Closes the images, opens them read-only and looks what they really hold.  Ends the
 * use of all records got before.  Also the way out after a failure.
 */
gboolean
virCheckpointSegmentsReadBack(virCheckpointSegments *segments, GError **error);

/** TRUE if @segment's active bitmap may be gone without a loss: all its bits are in
 * sidecars, and nobody wrote to the image since. */
gboolean
virCheckpointSegmentsIsKept(virCheckpointSegments *segments,
                            const virCheckpointSegment *segment);

/** Decides what became of bitmaps whose images were open read-write when the daemon
 * died.  The domain may run by now. */
gboolean
virCheckpointSegmentsResolveKept(virCheckpointSegments *segments, GError **error);

/** Adds the active bitmaps that records name and images do not have yet. */
gboolean
virCheckpointSegmentsRestart(virCheckpointSegments *segments, GError **error);

/**
 * virCheckpointSegmentsSweepOff:
 * Takes released bitmaps out of the images of @targets, after the last checkpoint out
 * of all.  Only a storage daemon that died makes it try again.
 *
 * Returns: FALSE if some may stay, as warnings say: settling the domain tries again
 * after the last checkpoint, and the guest when it runs.
 */
gboolean
virCheckpointSegmentsSweepOff(virCheckpointSegments *segments, GPtrArray *targets);

/** Disks (gchar*) of checkpoints that are going; maybe none. */
GPtrArray *
virCheckpointOfflineDeleting(GPtrArray *records);
/** A guest that is off: parks what it had not when it stopped, and takes it out of the
 * images; failures are logged only. */
void
virCheckpointSegmentsParkOff(virCheckpointSegments *segments);
/** Disks (gchar*) that settling must look at; maybe none. */
GPtrArray *
virCheckpointOfflineUnsettled(GPtrArray *records);
/** The disks that @record covers; @record NULL: none. */
GPtrArray *
virCheckpointOfflineTargets(const virCheckpointRecord *record);

#endif
