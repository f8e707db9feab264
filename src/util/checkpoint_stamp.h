/*
 * checkpoint_stamp.h: which file it is, and whether it was written to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STAMP_H
#define VIR_CHECKPOINT_STAMP_H

#include <glib.h>
#include <sys/stat.h>

/** What a stamp has besides inode, size and time of the last write. */
typedef enum {
    VIR_CHECKPOINT_STAMP_DEVICE = 1 << 0, /* a host that reboots may number anew */
    VIR_CHECKPOINT_STAMP_CHANGE = 1 << 1, /* time of change: a copy back shows */
} virCheckpointStampParts;

/** "DEVICE:INODE": which file it is, however it looks. */
gchar *
virCheckpointStampFile(const struct stat *st);
/** The same of an open file; NULL: nobody can tell. */
gchar *
virCheckpointStampFileFd(int fd);

/** [DEVICE:]INODE:SIZE:WRITTEN[:CHANGED]: another one as soon as it is written to. */
gchar *
virCheckpointStampLook(const struct stat *st, virCheckpointStampParts parts);
/** The same by absolute path; NULL for all but plain files. */
gchar *
virCheckpointStampLookPath(const gchar *path, virCheckpointStampParts parts);

#endif
