/*
 * checkpoint_offline_witness.c: what images look like while a storage daemon writes
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/offline.md): a storage daemon marks all bitmaps of an image as
 * in use when it opens it, and writes them back when it closes it.  If it is killed in
 * between, and we with it, the marks stay.  The bits are in sidecars; but did a guest
 * write to the image since, without anybody recording?  The image's times say so, if it
 * is known which of them are the storage daemon's own work.
 *
 * So a thread looks at the images after each write (inotify) and puts down what it
 * sees, provided that the storage daemon still lives *after* the look: it has the image
 * locked, so nobody else had written until then.  What was put down is a fact and
 * never gets wrong, for an image that looks so was written to by nobody since.
 *
 * It goes into the file of the folder's lock, behind the number that the store keeps
 * there: a slot an image, written by one call.  That survives the end of any process;
 * a crash of the host it survives if the file system had the time.
 */

#include "config.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_file.h"
#include "checkpoint_offline.h"
#include "checkpoint_offline_witness.h"

/** A slot; the first one is the store's. */
#define VIR_CHECKPOINT_WITNESS_BYTES 128
#define VIR_CHECKPOINT_WITNESS_MAX 1024
/** The next look while it is not known who wrote: the daemon is just being started. */
#define VIR_CHECKPOINT_WITNESS_AGAIN_MS 1

struct virCheckpointOfflineWitness {
    int lockFd;
    int events; /* inotify */
    int stop;   /* eventfd */
    GPtrArray *paths;
    GPtrArray *seen; /* gchar*: what was put down of each path */
    gint pid;        /* atomic; 0: not known yet */
    GThread *thread;
};

/* TRUE if the storage daemon had not ended yet: all that was done to its images before
 * this call is its own work. */
static gboolean
virCheckpointOfflineWitnessLives(virCheckpointOfflineWitness *witness)
{
    pid_t pid = g_atomic_int_get(&witness->pid);
    siginfo_t info = {.si_pid = 0};

    return pid > 0 &&
           waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

static void
virCheckpointOfflineWitnessPut(virCheckpointOfflineWitness *witness,
                               guint i,
                               const gchar *stamp)
{
    gchar slot[VIR_CHECKPOINT_WITNESS_BYTES] = "";

    if (g_strlcpy(slot, stamp, sizeof(slot)) >= sizeof(slot))
        return;
    if (pwrite(witness->lockFd, slot, sizeof(slot),
               (off_t)(i + 1) * VIR_CHECKPOINT_WITNESS_BYTES) != sizeof(slot))
        g_info("image '%s': what it looks like cannot be put down: %s",
               (const gchar *)g_ptr_array_index(witness->paths, i), g_strerror(errno));
}

/* FALSE: it is not known yet who wrote. */
static gboolean
virCheckpointOfflineWitnessLook(virCheckpointOfflineWitness *witness)
{
    gboolean known = TRUE;
    guint i;

    for (i = 0; i < witness->paths->len; i++) {
        g_autofree gchar *stamp =
            virCheckpointOfflineStamp(g_ptr_array_index(witness->paths, i));

        if (!stamp || g_strcmp0(stamp, g_ptr_array_index(witness->seen, i)) == 0)
            continue;
        if (!virCheckpointOfflineWitnessLives(witness)) {
            known = FALSE;
            continue;
        }
        virCheckpointOfflineWitnessPut(witness, i, stamp);
        g_free(g_ptr_array_index(witness->seen, i));
        g_ptr_array_index(witness->seen, i) = g_steal_pointer(&stamp);
    }
    return known;
}

static void
virCheckpointOfflineWitnessDrain(virCheckpointOfflineWitness *witness)
{
    gchar events[4096];

    while (read(witness->events, events, sizeof(events)) > 0)
        ;
}

static gpointer
virCheckpointOfflineWitnessThread(gpointer data)
{
    virCheckpointOfflineWitness *witness = data;
    struct pollfd wait[] = {{.fd = witness->stop, .events = POLLIN},
                            {.fd = witness->events, .events = POLLIN}};
    gboolean known = TRUE;

    while (poll(wait, G_N_ELEMENTS(wait),
                known ? -1 : VIR_CHECKPOINT_WITNESS_AGAIN_MS) >= 0 ||
           errno == EINTR) {
        if (wait[0].revents)
            break;
        virCheckpointOfflineWitnessDrain(witness);
        known = virCheckpointOfflineWitnessLook(witness);
    }
    return NULL;
}

virCheckpointOfflineWitness *
virCheckpointOfflineWitnessNew(int lockFd, GPtrArray *paths)
{
    virCheckpointOfflineWitness *witness = g_new0(virCheckpointOfflineWitness, 1);
    guint i;

    witness->lockFd = lockFd;
    witness->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    witness->stop = eventfd(0, EFD_CLOEXEC);
    witness->paths = g_ptr_array_new_with_free_func(g_free);
    witness->seen = g_ptr_array_new_with_free_func(g_free);
    if (ftruncate(lockFd, VIR_CHECKPOINT_WITNESS_BYTES) < 0)
        g_info("what images look like cannot be put down: %s", g_strerror(errno));
    for (i = 0; i < paths->len && i < VIR_CHECKPOINT_WITNESS_MAX; i++) {
        const gchar *path = g_ptr_array_index(paths, i);
        gchar *stamp = virCheckpointOfflineStamp(path);

        if (!stamp)
            continue;
        g_ptr_array_add(witness->paths, g_strdup(path));
        g_ptr_array_add(witness->seen, stamp);
        if (inotify_add_watch(witness->events, path, IN_MODIFY | IN_ATTRIB) < 0)
            g_info("image '%s' cannot be watched: %s", path, g_strerror(errno));
    }
    if (witness->events >= 0 && witness->stop >= 0)
        witness->thread =
            g_thread_new("witness", virCheckpointOfflineWitnessThread, witness);
    return witness;
}

gint *
virCheckpointOfflineWitnessPid(virCheckpointOfflineWitness *witness)
{
    return &witness->pid;
}

void
virCheckpointOfflineWitnessFree(virCheckpointOfflineWitness *witness)
{
    const guint64 one = 1;

    if (!witness)
        return;
    if (witness->thread && write(witness->stop, &one, sizeof(one)) == sizeof(one))
        g_thread_join(witness->thread);
    if (witness->events >= 0)
        close(witness->events);
    if (witness->stop >= 0)
        close(witness->stop);
    g_ptr_array_unref(witness->paths);
    g_ptr_array_unref(witness->seen);
    g_free(witness);
}

gboolean
virCheckpointOfflineWitnessed(int lockFd, const gchar *stamp)
{
    gchar slot[VIR_CHECKPOINT_WITNESS_BYTES];
    guint i;

    for (i = 1; i <= VIR_CHECKPOINT_WITNESS_MAX &&
                pread(lockFd, slot, sizeof(slot),
                      (off_t)i * VIR_CHECKPOINT_WITNESS_BYTES) == sizeof(slot);
         i++) {
        if (memchr(slot, '\0', sizeof(slot)) && g_str_equal(slot, stamp))
            return TRUE;
    }
    return FALSE;
}
