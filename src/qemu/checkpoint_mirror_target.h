/*
 * checkpoint_mirror_target.h: the files of a mirror: its target and its overlay
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRROR_TARGET_H
#define VIR_CHECKPOINT_MIRROR_TARGET_H

#include <glib.h>

/** What an existing target must be. */
typedef struct virCheckpointMirrorTargetNeeds {
    const gchar *disk;   /* target of the disk, for errors */
    const gchar *format; /* "qcow2", "raw", or NULL: probed as stock blockcopy does */
    guint64 sizeBytes;   /* virtual size of the disk */
    GPtrArray *images; /* gchar*: files that it must not be: all layers of all disks */
    gboolean mayBeLarger; /* if it is a raw block device */
} virCheckpointMirrorTargetNeeds;

/**
 * virCheckpointMirrorTargetOpen:
 * @path: the target
 * @format: (out) (transfer full): "qcow2" or "raw"
 *
 * Opens the target read-write and judges what was opened, so that nobody can put
 * another file there afterwards.  Changes nothing.  Without a format given the file's
 * magic decides, qcow2 or raw, as stock blockcopy does for a reused file.
 * Errors: VIR_ERR_SYSTEM_ERROR (missing), VIR_ERR_CONFIG_UNSUPPORTED (neither file nor
 * block device, has a backing or data file), VIR_ERR_INVALID_ARG (other size, the
 * source itself), VIR_ERR_RESOURCE_BUSY (in use).
 *
 * Returns: the descriptor, or -1.
 */
int
virCheckpointMirrorTargetOpen(const gchar *path,
                              const virCheckpointMirrorTargetNeeds *needs,
                              gchar **format,
                              GError **error);

/** FALSE if @path is one of @images (gchar*) or not there: what else it is, whoever
 * opens it will see. */
gboolean
virCheckpointMirrorTargetMayUse(const gchar *path, GPtrArray *images, GError **error);

/** TRUE if there is a block device at @path. */
gboolean
virCheckpointMirrorIsBlock(const gchar *path);

/** *@keeps: a disk in an image at @path can have persistent bitmaps. */
gboolean
virCheckpointMirrorTargetKeepsBitmaps(const gchar *path,
                                      const gchar *format,
                                      gboolean *keeps,
                                      GError **error);

/** FALSE, as stock blockcopy, if something is at @path already. */
gboolean
virCheckpointMirrorTargetMayCreate(const gchar *path,
                                   const gchar *disk,
                                   GError **error);

/** Makes a new image at @path, with mode and owner of @like; on failure it is gone. */
gboolean
virCheckpointMirrorTargetCreate(const gchar *path,
                                const gchar *like,
                                const gchar *format,
                                guint64 sizeBytes,
                                GError **error);

/**
 * virCheckpointMirrorTargetClean:
 * Removes all bitmaps of ours from the image: a stale one with the name of the active
 * one would switch tracking off at the pivot.  Looks again afterwards.
 */
gboolean
virCheckpointMirrorTargetClean(const gchar *path, const gchar *format, GError **error);

/**
 * virCheckpointMirrorTargetReopen:
 * The file of @fd, or of @path when @fd is -1, as an open file of its own.  The kernel
 * tells of a write that failed later once for each open file, and QEMU has @fd's.
 * Returns: a descriptor for virCheckpointMirrorTargetSync(), or -1.
 */
int
virCheckpointMirrorTargetReopen(int fd, const gchar *path, GError **error);

/** fsync of @fd, or of @path and its name when @fd is -1. */
gboolean
virCheckpointMirrorTargetSync(int fd, const gchar *path, GError **error);

/** Returns: (transfer full): where the overlay of @source goes. @directory may be NULL.
 */
gchar *
virCheckpointMirrorOverlayPath(const gchar *source,
                               const gchar *directory,
                               const gchar *jobId);

/**
 * virCheckpointMirrorOverlayCreate:
 * Makes the overlay file: qcow2 with extended_l2, backed by the absolute @source, same
 * size, mode and owner, on stable storage.  VIR_ERR_OPERATION_FAILED when its file
 * system has so little room that the guest's next writes could not be held.
 */
gboolean
virCheckpointMirrorOverlayCreate(const gchar *overlay,
                                 const gchar *source,
                                 const gchar *sourceFormat,
                                 guint64 sizeBytes,
                                 GError **error);

#endif
