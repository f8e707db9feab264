/*
 * checkpoint_stamp.c: which file it is, and whether it was written to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: what we know of a file's content is true as long as nobody else writes to it,
 * and its inode, size and times tell.  These texts are in records, so each kind keeps
 * its form: one that an earlier daemon wrote must be equal to the one that is made now.
 *
 * A kernel takes times by a tick of some ms.  Whoever stamps what was just written lets
 * one pass, or holds a lock against other writers.
 */

#include "config.h"

#include "checkpoint_stamp.h"

gchar *
virCheckpointStampFile(const struct stat *st)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT,
                           (guint64)st->st_dev, (guint64)st->st_ino);
}

gchar *
virCheckpointStampFileFd(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 ? virCheckpointStampFile(&st) : NULL;
}

gchar *
virCheckpointStampLook(const struct stat *st, virCheckpointStampParts parts)
{
    GString *text = g_string_new(NULL);

    if (parts & VIR_CHECKPOINT_STAMP_DEVICE)
        g_string_append_printf(text, "%" G_GUINT64_FORMAT ":", (guint64)st->st_dev);
    g_string_append_printf(
        text, "%" G_GUINT64_FORMAT ":%" G_GINT64_FORMAT ":%" G_GINT64_FORMAT ".%09ld",
        (guint64)st->st_ino, (gint64)st->st_size, (gint64)st->st_mtim.tv_sec,
        st->st_mtim.tv_nsec);
    if (parts & VIR_CHECKPOINT_STAMP_CHANGE)
        g_string_append_printf(text, ":%" G_GINT64_FORMAT ".%09ld",
                               (gint64)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
    return g_string_free(text, FALSE);
}

gchar *
virCheckpointStampLookPath(const gchar *path, virCheckpointStampParts parts)
{
    struct stat st;

    if (!path || !g_path_is_absolute(path) || stat(path, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return NULL;
    return virCheckpointStampLook(&st, parts);
}
