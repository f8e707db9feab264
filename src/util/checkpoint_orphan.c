/*
 * checkpoint_orphan.c: helpers that outlived the daemon that started them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a storage daemon with a guest's images closes them in order when we die, and
 * holds the lock of the domain's folder until it has.  One whose server hangs would do
 * that for ever, and we are not there to kill it.  So whoever comes after us looks for
 * such processes, and gives them as long as we would have.
 *
 * Exactly those: they are called so, have one of our lock files open, and whoever
 * started them is gone.  A pidfd is taken before these are looked at, so the process
 * that is killed is the one that was seen.  Another host's daemon may use the same
 * store, on this machine even (a test does): its storage daemons have a living parent
 * of our name.  Our own supervisor has that name as well, but no child but us, so what
 * it has inherited is an orphan.
 *
 * A process that was just being started when its daemon died shows its name a moment
 * later, and may not have heard that it shall end: so the look is repeated for some
 * seconds, and each is told again.
 */

#include "config.h"

#include "checkpoint_orphan.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "checkpoint_stamp.h"

/** As much of a program's name as the kernel keeps. */
#define VIR_CHECKPOINT_ORPHAN_NAME_BYTES 15
#define VIR_CHECKPOINT_ORPHAN_POLL_MS 50
/** How long one that was just being started may stay unseen; time between two looks. */
#define VIR_CHECKPOINT_ORPHAN_LOOK_MS 5000
#define VIR_CHECKPOINT_ORPHAN_LOOK_EACH_MS 500
/** One that was killed is gone at once, unless the kernel itself waits for a disk. */
#define VIR_CHECKPOINT_ORPHAN_KILL_MS 5000

typedef struct virCheckpointOrphan {
    pid_t pid;
    int fd; /* pidfd */
} virCheckpointOrphan;

static void
virCheckpointOrphanClear(gpointer data)
{
    virCheckpointOrphan *orphan = data;

    close(orphan->fd);
}

static gchar *
virCheckpointOrphanName(pid_t pid)
{
    g_autofree gchar *path = g_strdup_printf("/proc/%d/comm", (int)pid);
    gchar *name = NULL;

    if (!g_file_get_contents(path, &name, NULL, NULL))
        return NULL;
    return g_strchomp(name);
}

static pid_t
virCheckpointOrphanParent(pid_t pid)
{
    g_autofree gchar *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree gchar *text = NULL;
    const gchar *at;
    gint64 parent;

    /* PID (NAME) STATE PARENT ...: a name may hold anything. */
    if (!g_file_get_contents(path, &text, NULL, NULL) || !(at = strrchr(text, ')')) ||
        strlen(at) < 5)
        return 0;
    parent = g_ascii_strtoll(at + 4, NULL, 10);
    return (pid_t)parent;
}

/* TRUE if nobody waits for the end of @pid who would kill it. */
static gboolean
virCheckpointOrphanIsOne(pid_t pid)
{
    pid_t parent = virCheckpointOrphanParent(pid);
    g_autofree gchar *ours = NULL;
    g_autofree gchar *theirs = NULL;

    if (parent <= 0 || parent == getpid())
        return FALSE;
    if (parent == 1 || parent == getppid())
        return TRUE;
    ours = virCheckpointOrphanName(getpid());
    theirs = virCheckpointOrphanName(parent);
    return ours && theirs && !g_str_equal(ours, theirs);
}

/* TRUE if @pid has one of the files open whose "device:inode" are @ids. */
static gboolean
virCheckpointOrphanHolds(pid_t pid, GHashTable *ids)
{
    g_autofree gchar *folder = g_strdup_printf("/proc/%d/fd", (int)pid);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const gchar *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree gchar *path = g_build_filename(folder, name, NULL);
        g_autofree gchar *id = NULL;
        struct stat st;

        if (stat(path, &st) < 0)
            continue;
        id = virCheckpointStampFile(&st);
        if (g_hash_table_contains(ids, id))
            return TRUE;
    }
    return FALSE;
}

static gboolean
virCheckpointOrphanIsKnown(GArray *orphans, pid_t pid)
{
    guint i;

    for (i = 0; i < orphans->len; i++) {
        if (g_array_index(orphans, virCheckpointOrphan, i).pid == pid)
            return TRUE;
    }
    return FALSE;
}

static gboolean
virCheckpointOrphanSignal(const virCheckpointOrphan *orphan, int signum)
{
    return syscall(SYS_pidfd_send_signal, orphan->fd, signum, NULL, 0) == 0;
}

/* Adds those that are seen for the first time, and tells them to end. */
static void
virCheckpointOrphansLook(GArray *orphans, const gchar *program, GHashTable *ids)
{
    g_autoptr(GDir) dir = g_dir_open("/proc", 0, NULL);
    const gchar *entry;

    while (dir && (entry = g_dir_read_name(dir))) {
        pid_t pid = (pid_t)g_ascii_strtoll(entry, NULL, 10);
        virCheckpointOrphan orphan = {.pid = pid, .fd = -1};
        g_autofree gchar *name = pid > 0 ? virCheckpointOrphanName(pid) : NULL;

        if (!name || strncmp(name, program, VIR_CHECKPOINT_ORPHAN_NAME_BYTES) != 0 ||
            virCheckpointOrphanIsKnown(orphans, pid))
            continue;
        orphan.fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (orphan.fd < 0)
            continue;
        /* What is read now is of this process, or it is gone and gets no signal. */
        if (!virCheckpointOrphanIsOne(pid) || !virCheckpointOrphanHolds(pid, ids) ||
            !virCheckpointOrphanSignal(&orphan, SIGTERM)) {
            virCheckpointOrphanClear(&orphan);
            continue;
        }
        g_info("%s, process %d, outlived the daemon that started it", program,
               (int)pid);
        g_array_append_val(orphans, orphan);
    }
}

/* Waits until it is gone. */
static gboolean
virCheckpointOrphanEnded(const virCheckpointOrphan *orphan, int timeoutMs)
{
    struct pollfd wait = {.fd = orphan->fd, .events = POLLIN};

    return poll(&wait, 1, timeoutMs) > 0;
}

static void
virCheckpointOrphansForget(GArray *orphans)
{
    guint i = 0;

    while (i < orphans->len) {
        if (virCheckpointOrphanEnded(&g_array_index(orphans, virCheckpointOrphan, i),
                                     0))
            g_array_remove_index_fast(orphans, i);
        else
            i++;
    }
}

static guint
virCheckpointOrphansKill(GArray *orphans, const gchar *program)
{
    guint killed = 0;
    guint i;

    for (i = 0; i < orphans->len; i++) {
        const virCheckpointOrphan *orphan =
            &g_array_index(orphans, virCheckpointOrphan, i);

        if (!virCheckpointOrphanSignal(orphan, SIGKILL))
            continue;
        killed++;
        g_warning("%s, process %d, of a daemon that ended cannot close a guest's "
                  "images, as their server does not answer: it is killed",
                  program, (int)orphan->pid);
        virCheckpointOrphanEnded(orphan, VIR_CHECKPOINT_ORPHAN_KILL_MS);
    }
    return killed;
}

guint
virCheckpointOrphansEnd(const gchar *program, GPtrArray *locks, guint timeoutMs)
{
    g_autoptr(GArray) orphans = g_array_new(FALSE, FALSE, sizeof(virCheckpointOrphan));
    g_autoptr(GHashTable) ids =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    gint64 begin = g_get_monotonic_time();
    gint64 passedMs = 0;
    gint64 looked = -VIR_CHECKPOINT_ORPHAN_LOOK_EACH_MS;
    guint i;

    g_array_set_clear_func(orphans, virCheckpointOrphanClear);
    for (i = 0; i < locks->len; i++) {
        struct stat st;

        if (stat(g_ptr_array_index(locks, i), &st) == 0)
            g_hash_table_add(ids, virCheckpointStampFile(&st));
    }
    while (passedMs < timeoutMs &&
           (orphans->len > 0 || passedMs < VIR_CHECKPOINT_ORPHAN_LOOK_MS)) {
        if (passedMs < VIR_CHECKPOINT_ORPHAN_LOOK_MS &&
            passedMs >= looked + VIR_CHECKPOINT_ORPHAN_LOOK_EACH_MS) {
            virCheckpointOrphansLook(orphans, program, ids);
            looked = passedMs;
        }
        g_usleep(VIR_CHECKPOINT_ORPHAN_POLL_MS * 1000);
        virCheckpointOrphansForget(orphans);
        passedMs = (g_get_monotonic_time() - begin) / 1000;
    }
    return virCheckpointOrphansKill(orphans, program);
}
