/*
 * checkpoint_mirror_verify.c: is the target really the disk?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: an increment is right only if the target was the disk of its base checkpoint.
 * Whoever doubts that, or the storage, has all of it compared: after the bulk pass,
 * when the target is closed and synced and the source is still frozen below the overlay
 * (or its guest off), so that both are of one moment and the guest runs on.
 *
 * qemu-img does it, in a process of its own that takes no locks and writes nothing: one
 * that outlives a daemon which was killed does no harm, and the next daemon compares
 * again.  A raw target is given with its size: a device may be larger than the disk.
 */

#include "config.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_json.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirror_verify.h"

#define VIR_CHECKPOINT_VERIFY_OUTPUT ((gsize)4096)

struct virCheckpointMirrorVerify {
    GPid pid; /* 0: it has ended */
    int status;
    int output;
    int errors;
};

/* As qemu-img takes it. */
static gchar *
virCheckpointMirrorVerifyTarget(const virCheckpointJobRecord *job)
{
    g_autoptr(virCheckpointJson) image = NULL;
    virCheckpointJson *file;

    if (!g_str_equal(job->destFormat, "raw"))
        return g_strdup(job->destPath);
    file = virCheckpointJsonBuild(
        "s:driver", virCheckpointMirrorIsBlock(job->destPath) ? "host_device" : "file",
        "s:filename", job->destPath, NULL);
    image = virCheckpointJsonBuild("s:driver", "raw", "u:size", job->sizeBytes,
                                   "a:file", file, NULL);
    {
        g_autofree gchar *text = virCheckpointJsonFormat(image);

        return g_strconcat("json:", text, NULL);
    }
}

virCheckpointMirrorVerify *
virCheckpointMirrorVerifyStart(const virCheckpointJobRecord *job, GError **error)
{
    g_autofree gchar *target = virCheckpointMirrorVerifyTarget(job);
    gboolean raw = g_str_equal(job->destFormat, "raw");
    const gchar *argv[] = {"qemu-img",      "compare", "-U", "-f", "qcow2",
                           job->sourcePath, target,    NULL, NULL, NULL};
    const gchar *formatted[] = {"qemu-img", "compare", "-U",    "-f",
                                "qcow2",    "-F",      "qcow2", job->sourcePath,
                                target,     NULL};
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "LC_ALL", "C.UTF-8", TRUE);
    g_autoptr(virCheckpointMirrorVerify) verify = g_new0(virCheckpointMirrorVerify, 1);
    g_autoptr(GError) local = NULL;

    verify->output = -1;
    verify->errors = -1;
    if (!virCheckpointFaultPoint("verify/before", error))
        return NULL;
    if (!g_spawn_async_with_pipes(NULL, (gchar **)(raw ? argv : formatted), env,
                                  G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                                  NULL, &verify->pid, NULL, &verify->output,
                                  &verify->errors, &local)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "compare '%s': %s", job->destPath, local->message);
        return NULL;
    }
    return g_steal_pointer(&verify);
}

gboolean
virCheckpointMirrorVerifyRunning(virCheckpointMirrorVerify *verify)
{
    pid_t got;

    if (verify->pid == 0)
        return FALSE;
    got = waitpid(verify->pid, &verify->status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return TRUE;
    verify->pid = 0;
    return FALSE;
}

/* What a process that has ended left in a pipe: a line or two. */
static gchar *
virCheckpointMirrorVerifyRead(int fd)
{
    g_autofree gchar *text = g_new0(gchar, VIR_CHECKPOINT_VERIFY_OUTPUT);
    gsize length = 0;
    ssize_t got;

    do {
        got = read(fd, text + length, VIR_CHECKPOINT_VERIFY_OUTPUT - 1 - length);
        if (got > 0)
            length += (gsize)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    return g_strdelimit(g_strstrip(g_utf8_make_valid(text, (gssize)length)), "\n", ' ');
}

gboolean
virCheckpointMirrorVerifyResult(virCheckpointMirrorVerify *verify,
                                const virCheckpointJobRecord *job,
                                GError **error)
{
    static const gchar *words = "mismatch at offset ";
    g_autofree gchar *output = NULL;
    g_autofree gchar *errors = NULL;
    const gchar *at;

    g_assert(verify->pid == 0);
    if (WIFEXITED(verify->status) && WEXITSTATUS(verify->status) == 0)
        return TRUE;
    output = virCheckpointMirrorVerifyRead(verify->output);
    errors = virCheckpointMirrorVerifyRead(verify->errors);
    at = strstr(output, words);
    if (at && WIFEXITED(verify->status) && WEXITSTATUS(verify->status) == 1)
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "'%s' is not a copy of disk '%s': the first difference is at offset"
                    " %" G_GUINT64_FORMAT,
                    job->destPath, job->target,
                    g_ascii_strtoull(at + strlen(words), NULL, 10));
    else
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "'%s' could not be compared with disk '%s': %s", job->destPath,
                    job->target, *errors ? errors : output);
    return FALSE;
}

void
virCheckpointMirrorVerifyFree(virCheckpointMirrorVerify *verify)
{
    if (!verify)
        return;
    if (verify->pid != 0) {
        kill(verify->pid, SIGKILL);
        while (waitpid(verify->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    virCheckpointFdCleanup(&verify->output);
    virCheckpointFdCleanup(&verify->errors);
    g_free(verify);
}
