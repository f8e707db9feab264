/*
 * checkpoint_offline_guard.c: no start of a guest while one of its images is open
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: somebody may start the guest past us while a storage daemon has one of its
 * disks open.  Its QEMU opens one image after the other, fails at the lock of that one
 * and ends; the images that it had opened before stay marked as in use, and their
 * bitmaps are inconsistent for ever: tracking is lost (seen).  So that it fails at the
 * first of them, the other images are locked, too, while the storage daemon runs.
 *
 * In their order, which is that of QEMU's opening: those before the first image that
 * the storage daemon opens are locked first, those behind it when it has that open, and
 * let go of in reverse.  So at any moment a start either finds the first image locked,
 * or gets all of them, and then we fail.
 *
 * QEMU's locks are on single bytes: 100 + N says "I have permission N", 200 + N "nobody
 * else may have it"; permission 1 is to write.  Whoever takes one first locks and then
 * looks whether somebody has the opposite (block/file-posix.c, since QEMU 2.10).
 *
 * Only qcow2 files are concerned: others have no bitmaps, and may be shared.
 *
 * A copy holds such locks for as long as it runs ("holds"), and lends them to
 * operations on the domain that open one of these images read-write: those lock all
 * others.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_offline_guard.h"

#define VIR_CHECKPOINT_GUARD_WRITES 101
#define VIR_CHECKPOINT_GUARD_NO_WRITES 201

static void
virCheckpointOfflineGuardClose(gpointer fd)
{
    close(*(int *)fd);
}

/* Returns: the descriptor that holds the lock, or -1: without one if there is nothing
 * that can be locked, with @error if somebody writes to @path. */
static int
virCheckpointOfflineGuardFile(const gchar *path, GError **error)
{
    struct flock lock = {.l_type = F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = VIR_CHECKPOINT_GUARD_NO_WRITES,
                         .l_len = 1};
    struct flock other = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = VIR_CHECKPOINT_GUARD_WRITES,
                          .l_len = 1};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        fcntl(fd, F_OFD_SETLK, &lock) < 0 || fcntl(fd, F_OFD_GETLK, &other) < 0) {
        close(fd);
        return -1;
    }
    if (other.l_type == F_UNLCK)
        return fd;
    close(fd);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                "image '%s' is in use by another process", path);
    return -1;
}

/* The files of all other disks that can hold a bitmap, in order; borrowed from @view.
 * @before: (out): how many of them come before the first of @targets. */
static GPtrArray *
virCheckpointOfflineOthers(virCheckpointDomainView *view,
                           GPtrArray *targets,
                           guint *before)
{
    GPtrArray *paths = g_ptr_array_new();
    gboolean behind = FALSE;
    guint i;

    *before = 0;
    for (i = 0; i < view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(view->disks, i);

        if (g_ptr_array_find_with_equal_func(targets, disk->target, g_str_equal,
                                             NULL)) {
            behind = TRUE;
            continue;
        }
        if (disk->readOnly || !disk->source || !g_path_is_absolute(disk->source) ||
            g_strcmp0(disk->format, "qcow2") != 0)
            continue;
        g_ptr_array_add(paths, disk->source);
        *before += behind ? 0 : 1;
    }
    return paths;
}

static GArray *
virCheckpointOfflineGuards(void)
{
    GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));

    g_array_set_clear_func(fds, virCheckpointOfflineGuardClose);
    return fds;
}

/* The last one first. */
static void
virCheckpointOfflineGuardsFree(GArray *fds)
{
    while (fds->len > 0)
        g_array_set_size(fds, fds->len - 1);
    g_array_unref(fds);
}

/* The locks of one copy. */
typedef struct virCheckpointOfflineHolder {
    gchar *id;
    gchar *uuid;
    GPtrArray *paths;
    guint before;  /* how many of them come before the copy's disk ... */
    gboolean rest; /* ... which is open, so the others are locked, too */
    GArray *fds;   /* int; NULL: lent */
} virCheckpointOfflineHolder;

static GMutex holdersLock;
static GPtrArray *holders;

static void
virCheckpointOfflineHolderFree(gpointer data)
{
    virCheckpointOfflineHolder *holder = data;

    g_free(holder->id);
    g_free(holder->uuid);
    g_ptr_array_unref(holder->paths);
    g_clear_pointer(&holder->fds, virCheckpointOfflineGuardsFree);
    g_free(holder);
}

/* Who has an image open already keeps a guest from starting as well. */
static void
virCheckpointOfflineHolderLock(virCheckpointOfflineHolder *holder)
{
    guint count = holder->rest ? holder->paths->len : holder->before;
    guint i;

    holder->fds = virCheckpointOfflineGuards();
    for (i = 0; i < count; i++) {
        int fd =
            virCheckpointOfflineGuardFile(g_ptr_array_index(holder->paths, i), NULL);

        if (fd >= 0)
            g_array_append_val(holder->fds, fd);
    }
}

void
virCheckpointOfflineHold(virCheckpointDomainView *view,
                         GPtrArray *targets,
                         const gchar *id)
{
    virCheckpointOfflineHolder *holder = g_new0(virCheckpointOfflineHolder, 1);
    g_autoptr(GPtrArray) paths =
        virCheckpointOfflineOthers(view, targets, &holder->before);
    guint i;

    holder->id = g_strdup(id);
    holder->uuid = g_strdup(view->uuid);
    holder->paths = g_ptr_array_new_with_free_func(g_free);
    for (i = 0; i < paths->len; i++)
        g_ptr_array_add(holder->paths, g_strdup(g_ptr_array_index(paths, i)));
    virCheckpointOfflineHolderLock(holder);
    g_mutex_lock(&holdersLock);
    if (!holders)
        holders = g_ptr_array_new_with_free_func(virCheckpointOfflineHolderFree);
    g_ptr_array_add(holders, holder);
    g_mutex_unlock(&holdersLock);
}

void
virCheckpointOfflineHoldRest(const gchar *id)
{
    guint i;

    g_mutex_lock(&holdersLock);
    for (i = 0; holders && i < holders->len; i++) {
        virCheckpointOfflineHolder *holder = g_ptr_array_index(holders, i);

        if (!g_str_equal(holder->id, id) || holder->rest)
            continue;
        holder->rest = TRUE;
        /* Those before are locked twice for a moment. */
        if (holder->fds) {
            GArray *before = g_steal_pointer(&holder->fds);

            virCheckpointOfflineHolderLock(holder);
            virCheckpointOfflineGuardsFree(before);
        }
    }
    g_mutex_unlock(&holdersLock);
}

void
virCheckpointOfflineRelease(const gchar *id)
{
    guint i;

    g_mutex_lock(&holdersLock);
    for (i = 0; holders && i < holders->len;) {
        const virCheckpointOfflineHolder *holder = g_ptr_array_index(holders, i);

        if (g_str_equal(holder->id, id))
            g_ptr_array_remove_index_fast(holders, i);
        else
            i++;
    }
    g_mutex_unlock(&holdersLock);
}

static void
virCheckpointOfflineLendOrNot(const gchar *uuid, gboolean lend)
{
    guint i;

    g_mutex_lock(&holdersLock);
    for (i = 0; holders && i < holders->len; i++) {
        virCheckpointOfflineHolder *holder = g_ptr_array_index(holders, i);

        if (!g_str_equal(holder->uuid, uuid))
            continue;
        if (lend)
            g_clear_pointer(&holder->fds, virCheckpointOfflineGuardsFree);
        else if (!holder->fds)
            virCheckpointOfflineHolderLock(holder);
    }
    g_mutex_unlock(&holdersLock);
}

void
virCheckpointOfflineLend(virCheckpointDomainView *view)
{
    virCheckpointOfflineLendOrNot(view->uuid, TRUE);
}

/* Locks @paths from @from to @to; all of them or none. */
static GArray *
virCheckpointOfflineGuardSome(GPtrArray *paths, guint from, guint to, GError **error)
{
    GArray *fds = virCheckpointOfflineGuards();
    guint i;

    for (i = from; i < to; i++) {
        g_autoptr(GError) busy = NULL;
        int fd = virCheckpointOfflineGuardFile(g_ptr_array_index(paths, i), &busy);

        if (busy) {
            g_propagate_error(error, g_steal_pointer(&busy));
            virCheckpointOfflineGuardsFree(fds);
            return NULL;
        }
        if (fd >= 0)
            g_array_append_val(fds, fd);
    }
    return fds;
}

gboolean
virCheckpointOfflineGuard(virCheckpointDomainView *view,
                          GPtrArray *targets,
                          GError **error)
{
    guint before;
    g_autoptr(GPtrArray) paths = virCheckpointOfflineOthers(view, targets, &before);

    virCheckpointOfflineUnguard(view);
    view->guards = virCheckpointOfflineGuardSome(paths, 0, before, error);
    return view->guards && virCheckpointFaultPoint("offline/guarded", error);
}

gboolean
virCheckpointOfflineGuardRest(virCheckpointDomainView *view,
                              GPtrArray *targets,
                              GError **error)
{
    guint before;
    g_autoptr(GPtrArray) paths = virCheckpointOfflineOthers(view, targets, &before);

    virCheckpointOfflineUnguardRest(view);
    view->guardsRest = virCheckpointOfflineGuardSome(paths, before, paths->len, error);
    return view->guardsRest != NULL;
}

void
virCheckpointOfflineUnguardRest(virCheckpointDomainView *view)
{
    g_clear_pointer(&view->guardsRest, virCheckpointOfflineGuardsFree);
}

void
virCheckpointOfflineUnguard(virCheckpointDomainView *view)
{
    virCheckpointOfflineUnguardRest(view);
    g_clear_pointer(&view->guards, virCheckpointOfflineGuardsFree);
    if (!view->monitor)
        virCheckpointOfflineLendOrNot(view->uuid, FALSE);
}
