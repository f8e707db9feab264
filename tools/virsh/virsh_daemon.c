/*
 * virsh_daemon.c: virtcheckpointd on demand
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As libvirt's client library does for its session daemons: whoever finds nobody on the
 * socket starts one.  Two that do so at a time are no problem: the daemon itself
 * refuses to run twice, and both wait for the socket, not for their own child.
 *
 * The daemon gets a session of its own and nothing of our terminal; its messages go to
 * a log, of which the last line is quoted if it does not come up.
 */

#include "config.h"

#include "virsh_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"

#define VIRSH_DAEMON "virtcheckpointd"
#define VIRSH_DAEMON_IDLE "120"
#define VIRSH_WAIT_USEC ((gint64)10 * G_USEC_PER_SEC)
/* Our daemon is gone; one that somebody else started may be about to answer. */
#define VIRSH_OTHER_USEC ((gint64)1 * G_USEC_PER_SEC)
#define VIRSH_STEP_USEC ((gulong)20 * 1000)

/* Returns: 0 if a connection to @path is accepted, or errno; @peer: (out) (optional):
 * who made the socket. */
static int
virCheckpointVirshDaemonConnect(const gchar *path, struct ucred *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    socklen_t size = sizeof(*peer);

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >=
        sizeof(address.sun_path))
        return ENAMETOOLONG;
    if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return errno;
    if (peer && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) < 0)
        return errno;
    return 0;
}

/* The socket that libvirt's clients try first, if it is our daemon that has it. */
static gchar *
virCheckpointVirshDaemonInFront(const gchar *folder)
{
    g_autofree gchar *path = g_build_filename(folder, "virtqemud-sock", NULL);
    g_autofree gchar *file = NULL;
    g_autofree gchar *name = NULL;
    struct ucred peer = {0};

    if (virCheckpointVirshDaemonConnect(path, &peer) != 0)
        return NULL;
    file = g_strdup_printf("/proc/%d/comm", (int)peer.pid);
    if (!g_file_get_contents(file, &name, NULL, NULL) ||
        !g_str_equal(g_strchomp(name), VIRSH_DAEMON))
        return NULL;
    return g_steal_pointer(&path);
}

gchar *
virCheckpointVirshDaemonFind(const gchar *env,
                             const gchar *self,
                             const gchar *sbindir,
                             GError **error)
{
    g_autofree gchar *installed = g_build_filename(sbindir, VIRSH_DAEMON, NULL);
    gchar *file;

    if (env && *env)
        return g_strdup(env);
    if (self && g_str_has_suffix(self, "/tools/virsh/virsh")) {
        g_autofree gchar *built = NULL;

        built =
            g_strdup_printf("%.*s/src/remote/" VIRSH_DAEMON,
                            (int)(strlen(self) - strlen("/tools/virsh/virsh")), self);
        if (access(built, X_OK) == 0)
            return g_steal_pointer(&built);
    }
    if (access(installed, X_OK) == 0)
        return g_steal_pointer(&installed);
    if ((file = g_find_program_in_path(VIRSH_DAEMON)))
        return file;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "no " VIRSH_DAEMON " in '%s' or PATH", sbindir);
    return NULL;
}

/* Opens the log and sets @path to its name, or takes /dev/null and NULL. */
static int
virCheckpointVirshDaemonLog(gchar **path)
{
    g_autofree gchar *folder = NULL;
    g_autofree gchar *file = NULL;
    int fd;

    if (geteuid() == 0)
        folder = g_strdup(VIR_CHECKPOINT_LOCALSTATEDIR "/log/libvirt");
    else
        folder = g_build_filename(g_get_user_cache_dir(), "libvirt", NULL);
    file = g_build_filename(folder, VIRSH_DAEMON ".log", NULL);
    g_mkdir_with_parents(folder, 0700);
    fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        *path = g_steal_pointer(&file);
    else
        fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return fd;
}

/* The last line that was written to @log after @start, or NULL. */
static gchar *
virCheckpointVirshDaemonLastLine(const gchar *log, goffset start)
{
    g_autofree gchar *text = NULL;
    gsize length = 0;
    gchar *line;

    if (!log || !g_file_get_contents(log, &text, &length, NULL) ||
        length <= (gsize)start)
        return NULL;
    g_strchomp(text + start);
    line = strrchr(text + start, '\n');
    line = g_strdup(line ? line + 1 : text + start);
    return *line ? line : (g_free(line), NULL);
}

static void
virCheckpointVirshDaemonChild(gpointer data)
{
    setsid();
}

static GPid
virCheckpointVirshDaemonSpawn(const gchar *file,
                              const gchar *socketPath,
                              int logFd,
                              GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    const gchar *backend = g_getenv("VIRT_CHECKPOINT_BACKEND");
    const gchar *state = g_getenv("VIRT_CHECKPOINT_STATE");
    GPid pid = 0;

    g_ptr_array_add(words, (gpointer)file);
    g_ptr_array_add(words, (gpointer) "--timeout");
    g_ptr_array_add(words, (gpointer)VIRSH_DAEMON_IDLE);
    g_ptr_array_add(words, (gpointer) "--socket");
    g_ptr_array_add(words, (gpointer)socketPath);
    if (backend && *backend) {
        g_ptr_array_add(words, (gpointer) "--backend");
        g_ptr_array_add(words, (gpointer)backend);
    }
    if (state && *state) {
        g_ptr_array_add(words, (gpointer) "--state-dir");
        g_ptr_array_add(words, (gpointer)state);
    }
    g_ptr_array_add(words, NULL);
    if (!g_spawn_async_with_fds("/", (gchar **)words->pdata, NULL, G_SPAWN_DEFAULT,
                                virCheckpointVirshDaemonChild, NULL, &pid, -1, logFd,
                                logFd, error))
        return 0;
    return pid;
}

/* Whether @pid, which is nobody's child here, has ended. */
static gboolean
virCheckpointVirshDaemonEnded(int pidFd, GPid pid)
{
    struct pollfd wait = {.fd = pidFd, .events = POLLIN};

    if (pidFd >= 0)
        return poll(&wait, 1, 0) > 0;
    return kill(pid, 0) < 0 && errno == ESRCH;
}

static gboolean
virCheckpointVirshDaemonWait(const gchar *answers, GPid pid)
{
    VIR_CHECKPOINT_AUTOFD int pidFd = (int)syscall(SYS_pidfd_open, pid, 0);
    gint64 deadline = g_get_monotonic_time() + VIRSH_WAIT_USEC;
    gboolean ended = FALSE;

    while (virCheckpointVirshDaemonConnect(answers, NULL) != 0) {
        if (!ended && virCheckpointVirshDaemonEnded(pidFd, pid)) {
            ended = TRUE;
            deadline = MIN(deadline, g_get_monotonic_time() + VIRSH_OTHER_USEC);
        }
        if (g_get_monotonic_time() >= deadline)
            return FALSE;
        g_usleep(VIRSH_STEP_USEC);
    }
    return TRUE;
}

static gboolean
virCheckpointVirshDaemonStart(const virCheckpointVirshRoute *route, GError **error)
{
    g_autofree gchar *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree gchar *file = NULL;
    g_autofree gchar *log = NULL;
    g_autofree gchar *line = NULL;
    VIR_CHECKPOINT_AUTOFD int logFd = -1;
    struct stat st = {0};
    GPid pid;

    if (!(file = virCheckpointVirshDaemonFind(g_getenv("VIRT_CHECKPOINTD"), self,
                                              VIR_CHECKPOINT_SBINDIR, error)))
        return FALSE;
    logFd = virCheckpointVirshDaemonLog(&log);
    if (logFd >= 0 && fstat(logFd, &st) < 0)
        st.st_size = 0;
    if (!(pid = virCheckpointVirshDaemonSpawn(file, route->socketPath, logFd, error))) {
        g_prefix_error(error, "start '%s': ", file);
        return FALSE;
    }
    if (virCheckpointVirshDaemonWait(route->answers, pid))
        return TRUE;
    line = virCheckpointVirshDaemonLastLine(log, st.st_size);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "'%s' was started and does not answer%s%s", file, line ? ": " : "",
                line ? line : "");
    return FALSE;
}

gboolean
virCheckpointVirshDaemonEnsure(virCheckpointVirshRoute *route, GError **error)
{
    g_autofree gchar *folder = g_path_get_dirname(route->socketPath);
    g_autofree gchar *front = NULL;
    int code = virCheckpointVirshDaemonConnect(route->answers, NULL);

    if (code == 0)
        return TRUE;
    if (!route->chosen && (front = virCheckpointVirshDaemonInFront(folder))) {
        virCheckpointVirshRouteMove(route, front);
        return TRUE;
    }
    if (code != ENOENT && code != ECONNREFUSED) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "%s",
                    g_strerror(code));
        return FALSE;
    }
    g_mkdir_with_parents(folder, geteuid() == 0 ? 0755 : 0700);
    if (access(folder, W_OK) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "%s, and this user may not start it", g_strerror(code));
        return FALSE;
    }
    return virCheckpointVirshDaemonStart(route, error);
}
