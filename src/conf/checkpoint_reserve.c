/*
 * checkpoint_reserve.c: room for what must go on when the disk is full
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A record is replaced by writing a new one, so a full disk would stop all that makes
 * room (deleting a checkpoint) and all that brings a guest back on its image (the end
 * of a mirror).  The store keeps some blocks for these in a file: when a write fails
 * that may have them, the file goes, and the write is tried once more.  It is made
 * again as soon as there is room.
 *
 * The file holds nothing and is not synced.  Lost, or without its blocks (we ended
 * between making it and giving it some, or the host did), it gets them when the store
 * is opened: allocating what is there already does nothing.
 */

#include "config.h"

#include "checkpoint_storepriv.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "checkpoint_file.h"

#define RESERVE_BYTES (256 * 1024)

gboolean
virCheckpointReserveMake(const gchar *root)
{
    g_autofree gchar *path = g_build_filename(root, VIR_CHECKPOINT_STORE_RESERVE, NULL);
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    int failed = 0;

    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        g_debug("make '%s': %s", path, g_strerror(errno));
        return FALSE;
    }
    /* A part of it would be gone before it is of use. */
    failed = posix_fallocate(fd, 0, RESERVE_BYTES);
    if (!failed)
        return TRUE;
    g_debug("reserve '%s': %s", path, g_strerror(failed));
    if (unlink(path) < 0)
        g_debug("remove '%s': %s", path, g_strerror(errno));
    return FALSE;
}

gboolean
virCheckpointReserveGive(const gchar *root, const GError *why)
{
    g_autofree gchar *path = g_build_filename(root, VIR_CHECKPOINT_STORE_RESERVE, NULL);

    if (unlink(path) < 0)
        return FALSE;
    g_warning("store '%s': what is reserved for the end of operations is used now: %s",
              root, why->message);
    return TRUE;
}
