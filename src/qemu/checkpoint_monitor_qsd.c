/*
 * checkpoint_monitor_qsd.c: a qemu-storage-daemon of our own as a QMP peer
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: what must be done to images without a guest (merging sidecars, checkpoints of
 * a guest that is off) is done by a storage daemon that lives for one operation.  It
 * gets one end of a socket pair as its monitor, so there is no path to protect and
 * nothing to clean up.  QEMU 7.2's storage daemon has no add-fd: files are opened by
 * path here, or as /dev/fd/N when it inherits them.
 *
 * It ends with us whatever happens: the kernel sends it a signal when the thread that
 * started it ends (PR_SET_PDEATHSIG), so one thread that lives as long as the process
 * starts them all.  One that only reads, or writes what no record names, is killed. One
 * that has a guest's image open read-write is told to end in order: it writes its
 * bitmaps back, and the lock of the domain's folder, which it inherits, is free only
 * then.  If it cannot, as a server hangs, the next daemon ends it: checkpoint_orphan.c.
 *
 * It runs as our user, with CAP_DAC_OVERRIDE as its only capability (an image may
 * belong to QEMU's user), cannot gain others, and has no network unless an image needs
 * one.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_monitor.h"
#include "checkpoint_orphan.h"

#define PROGRAM "qemu-storage-daemon"
/** Longest wait for one answer: a merge reads whole bitmaps, never data. */
#define ANSWER_TIMEOUT_MS (120 * 1000)
/** Longest wait for the first one, when the images are open: a server may hang. */
#define OPEN_TIMEOUT_MS (60 * 1000)
/** Longest line that is taken: query-named-block-nodes with many bitmaps is far below.
 */
#define ANSWER_MAX_BYTES (64u * 1024 * 1024)
/** How long a daemon without a guest's image gets to close what it has open: it may
 * wait for a server that does not answer. */
#define END_TIMEOUT_MS (5 * 1000)
/** How long one with a guest's image gets, as long as it answered before: it writes
 * bitmaps, never data. */
#define ORDERLY_TIMEOUT_MS (60 * 1000)
/** What it says on stderr: a sentence or two. */
#define COMPLAINT_MAX_BYTES (16 * 1024)

typedef struct virCheckpointStorageDaemon {
    GMutex lock; /* held for one command and its answer */
    gboolean orderly;
    gboolean answers; /* its images are open, and no answer has failed to come */
    GPid pid;
    int fd;
    gchar *served;   /* disks that are on a server, for errors; or NULL */
    int complaints;  /* its stderr, a file without a name */
    GString *input;  /* received, not yet consumed */
    GPtrArray *args; /* gchar*, borrowed while it is being started */
} virCheckpointStorageDaemon;

static void
virCheckpointStorageDaemonEnd(virCheckpointStorageDaemon *daemon)
{
    gboolean patient = daemon->orderly && daemon->answers;
    gint64 until =
        g_get_monotonic_time() +
        (patient ? ORDERLY_TIMEOUT_MS : END_TIMEOUT_MS) * G_GINT64_CONSTANT(1000);
    pid_t ended = 0;
    int status;

    kill(daemon->pid, SIGTERM);
    while (g_get_monotonic_time() < until &&
           (ended = waitpid(daemon->pid, &status, WNOHANG)) == 0)
        g_usleep(1000);
    if (ended == 0) {
        if (daemon->orderly)
            g_warning(PROGRAM
                      " cannot close a guest's images, as their server does not "
                      "answer: it is killed");
        kill(daemon->pid, SIGKILL);
    }
    while (ended == 0 && waitpid(daemon->pid, &status, 0) < 0 && errno == EINTR)
        ;
    g_spawn_close_pid(daemon->pid);
}

static void
virCheckpointStorageDaemonFree(gpointer peer)
{
    virCheckpointStorageDaemon *daemon = peer;

    if (daemon->fd >= 0)
        close(daemon->fd);
    if (daemon->pid > 0)
        virCheckpointStorageDaemonEnd(daemon);
    if (daemon->complaints >= 0)
        close(daemon->complaints);
    g_string_free(daemon->input, TRUE);
    g_free(daemon->served);
    g_mutex_clear(&daemon->lock);
    g_free(daemon);
}

/*
 * The reason that it gave on stderr, as a sentence, or NULL.  In front of it stand the
 * program's name and the whole argument.
 */
static gchar *
virCheckpointStorageDaemonComplaint(virCheckpointStorageDaemon *daemon)
{
    g_autofree gchar *text = g_malloc0(COMPLAINT_MAX_BYTES + 1);
    const gchar *at = text;
    guint i;

    if (daemon->complaints < 0 ||
        pread(daemon->complaints, text, COMPLAINT_MAX_BYTES, 0) <= 0)
        return NULL;
    if (g_str_has_prefix(at, PROGRAM ": "))
        at += strlen(PROGRAM ": ");
    for (i = 0; daemon->args && i + 2 < daemon->args->len; i++) {
        g_autofree gchar *argument =
            g_strdup_printf("%s %s: ", (gchar *)g_ptr_array_index(daemon->args, i),
                            (gchar *)g_ptr_array_index(daemon->args, i + 1));

        if (g_str_has_prefix(at, argument))
            at += strlen(argument);
    }
    return g_strdelimit(g_strstrip(g_strdup(at)), "\n", ' ');
}

static void
virCheckpointStorageDaemonSilent(virCheckpointStorageDaemon *daemon,
                                 gboolean lives,
                                 GError **error)
{
    g_autofree gchar *complaint = virCheckpointStorageDaemonComplaint(daemon);

    daemon->answers = FALSE;
    if (lives && daemon->served)
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_TIMEOUT,
                    PROGRAM
                    " does not answer, nor does the server of disk %s, maybe: see "
                    "to it, then do this again",
                    daemon->served);
    else
        g_set_error(error, VIR_CHECKPOINT_ERROR,
                    lives ? VIR_ERR_OPERATION_TIMEOUT : VIR_ERR_OPERATION_FAILED,
                    PROGRAM " %s%s%s", lives ? "does not answer" : "ended",
                    complaint ? ": " : "", complaint ? complaint : "");
}

/* Receives more; FALSE when the peer is gone or silent for too long. */
static gboolean
virCheckpointStorageDaemonReceive(virCheckpointStorageDaemon *daemon, GError **error)
{
    struct pollfd wait = {.fd = daemon->fd, .events = POLLIN};
    gchar buffer[16384];
    gssize got = -1;
    int ready;

    do
        ready = poll(&wait, 1, daemon->answers ? ANSWER_TIMEOUT_MS : OPEN_TIMEOUT_MS);
    while (ready < 0 && errno == EINTR);
    if (ready > 0) {
        do
            got = recv(daemon->fd, buffer, sizeof(buffer), 0);
        while (got < 0 && errno == EINTR);
    }
    if (got <= 0 || daemon->input->len > ANSWER_MAX_BYTES) {
        virCheckpointStorageDaemonSilent(daemon, ready == 0, error);
        return FALSE;
    }
    g_string_append_len(daemon->input, buffer, got);
    return TRUE;
}

/* The next line that is an answer or the greeting: events are skipped. */
static gchar *
virCheckpointStorageDaemonLine(virCheckpointStorageDaemon *daemon, GError **error)
{
    for (;;) {
        gchar *end = strchr(daemon->input->str, '\n');
        g_autofree gchar *line = NULL;
        g_autoptr(virCheckpointJson) value = NULL;

        if (!end) {
            if (!virCheckpointStorageDaemonReceive(daemon, error))
                return NULL;
            continue;
        }
        line = g_strndup(daemon->input->str, (gsize)(end - daemon->input->str));
        g_string_erase(daemon->input, 0, end - daemon->input->str + 1);
        value = virCheckpointJsonParse(line, -1, NULL);
        if (!virCheckpointJsonGet(value, "event"))
            return g_steal_pointer(&line);
    }
}

static gchar *
virCheckpointStorageDaemonRun(gpointer peer, const gchar *command, GError **error)
{
    virCheckpointStorageDaemon *daemon = peer;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&daemon->lock);
    g_autofree gchar *line = g_strconcat(command, "\n", NULL);
    const gchar *at = line;
    gsize left = strlen(line);

    while (left > 0) {
        gssize sent = send(daemon->fd, at, left, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                        PROGRAM " is gone: %s", g_strerror(errno));
            return NULL;
        }
        at += sent;
        left -= (gsize)sent;
    }
    return virCheckpointStorageDaemonLine(daemon, error);
}

/* What is to be started; @done under spawnLock. */
typedef struct virCheckpointStorageSpawn {
    virCheckpointStorageDaemon *daemon;
    const virCheckpointStorageDaemonOptions *options;
    int theirs;
    pid_t parent;
    GError *error;
    gboolean done;
} virCheckpointStorageSpawn;

static GMutex spawnLock;
static GCond spawnDone;

/* Everything but reading and writing others' files; calls only what a child may. */
static void
virCheckpointStorageDaemonConfine(gboolean network)
{
    const struct rlimit none = {0, 0};
    gulong capability;

    if (!network)
        (void)unshare(CLONE_NEWNET); /* an ordinary user has no right to: no harm */
    for (capability = 0; capability < 64; capability++) {
        if (capability != CAP_DAC_OVERRIDE)
            (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none); /* it holds passphrases */
}

/* Between fork and exec: async-signal-safe calls only. */
static void
virCheckpointStorageDaemonChild(gpointer data)
{
    const virCheckpointStorageSpawn *spawn = data;
    guint i;

    virCheckpointStorageDaemonConfine(spawn->options->network);
    prctl(PR_SET_PDEATHSIG, spawn->options->orderly ? SIGTERM : SIGKILL);
    if (getppid() != spawn->parent)
        _exit(EXIT_FAILURE);
    fcntl(spawn->theirs, F_SETFD, 0);
    for (i = 0; i < spawn->options->fdCount; i++)
        fcntl(spawn->options->fds[i], F_SETFD, 0);
    if (spawn->daemon->complaints >= 0)
        dup2(spawn->daemon->complaints, STDERR_FILENO);
}

/* The thread that starts them all. */
static gpointer
virCheckpointStorageDaemonSpawner(gpointer data)
{
    GAsyncQueue *queue = data;

    for (;;) {
        virCheckpointStorageSpawn *spawn = g_async_queue_pop(queue);

        g_spawn_async(NULL, (gchar **)spawn->daemon->args->pdata, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD |
                          G_SPAWN_STDOUT_TO_DEV_NULL,
                      virCheckpointStorageDaemonChild, spawn, &spawn->daemon->pid,
                      &spawn->error);
        if (spawn->options->pid)
            g_atomic_int_set(spawn->options->pid, spawn->daemon->pid);
        g_mutex_lock(&spawnLock);
        spawn->done = TRUE;
        g_cond_broadcast(&spawnDone);
        g_mutex_unlock(&spawnLock);
    }
    return NULL;
}

static void
virCheckpointStorageDaemonAsk(virCheckpointStorageSpawn *spawn)
{
    static GAsyncQueue *queue;
    static pid_t owner;

    g_mutex_lock(&spawnLock);
    /* A process that forked off has the queue, but not the thread. */
    if (!queue || owner != getpid()) {
        queue = g_async_queue_new();
        owner = getpid();
        g_thread_unref(
            g_thread_new("storage", virCheckpointStorageDaemonSpawner, queue));
    }
    g_async_queue_push(queue, spawn);
    while (!spawn->done)
        g_cond_wait(&spawnDone, &spawnLock);
    g_mutex_unlock(&spawnLock);
}

static gboolean
virCheckpointStorageDaemonSpawn(virCheckpointStorageDaemon *daemon,
                                const virCheckpointStorageDaemonOptions *options,
                                int theirs,
                                GError **error)
{
    static const virCheckpointStorageDaemonOptions none;
    virCheckpointStorageSpawn spawn = {
        .daemon = daemon,
        .options = options ? options : &none,
        .theirs = theirs,
        .parent = getpid(),
    };

    virCheckpointStorageDaemonAsk(&spawn);
    if (!spawn.error)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "cannot start " PROGRAM ": %s", spawn.error->message);
    g_clear_error(&spawn.error);
    return FALSE;
}

static virCheckpointMonitor *
virCheckpointStorageDaemonStart(GPtrArray *args,
                                const virCheckpointStorageDaemonOptions *options,
                                int ours,
                                int theirs,
                                GError **error)
{
    static const virCheckpointMonitorOps ops = {
        .run = virCheckpointStorageDaemonRun,
        .free = virCheckpointStorageDaemonFree,
    };
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autofree gchar *greeting = NULL;
    virCheckpointStorageDaemon *daemon = g_new0(virCheckpointStorageDaemon, 1);
    gboolean started;

    g_mutex_init(&daemon->lock);
    daemon->fd = ours;
    daemon->orderly = options && options->orderly;
    daemon->served = g_strdup(options ? options->served : NULL);
    daemon->complaints = memfd_create("complaints", MFD_CLOEXEC);
    daemon->input = g_string_new(NULL);
    daemon->args = args;
    monitor = virCheckpointMonitorNew(&ops, daemon, PROGRAM);
    started = virCheckpointStorageDaemonSpawn(daemon, options, theirs, error);
    close(theirs);
    if (!started || !(greeting = virCheckpointStorageDaemonLine(daemon, error)))
        return NULL;
    daemon->answers = TRUE;
    if (!(reply = virCheckpointMonitorRun(monitor, "qmp_capabilities", NULL, error)))
        return NULL;
    daemon->args = NULL;
    return g_steal_pointer(&monitor);
}

virCheckpointMonitor *
virCheckpointMonitorNewStorageDaemon(const gchar *const *argv,
                                     const virCheckpointStorageDaemonOptions *options,
                                     GError **error)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autofree gchar *chardev = NULL;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                    "cannot make a socket pair: %s", g_strerror(errno));
        return NULL;
    }
    chardev = g_strdup_printf("socket,id=monitor,fd=%d", pair[1]);
    g_ptr_array_add(args, (gpointer)PROGRAM);
    for (; argv && *argv; argv++)
        g_ptr_array_add(args, (gpointer)*argv);
    g_ptr_array_add(args, (gpointer) "--chardev");
    g_ptr_array_add(args, chardev);
    g_ptr_array_add(args, (gpointer) "--monitor");
    g_ptr_array_add(args, (gpointer) "chardev=monitor");
    g_ptr_array_add(args, NULL);
    return virCheckpointStorageDaemonStart(args, options, pair[0], pair[1], error);
}

static gpointer
virCheckpointStorageDaemonOrphans(gpointer data)
{
    g_autoptr(GPtrArray) locks = data;

    virCheckpointOrphansEnd(PROGRAM, locks, ORDERLY_TIMEOUT_MS);
    return NULL;
}

void
virCheckpointMonitorEndStorageDaemons(GPtrArray *locks)
{
    /* It ends with the process at the latest: nobody waits for it. */
    if (locks->len > 0)
        g_thread_unref(g_thread_new("orphans", virCheckpointStorageDaemonOrphans,
                                    g_ptr_array_ref(locks)));
}
