/*
 * checkpoint_backend.c: where the stock daemon is
 *
 * Libvirt's clients prefer virtqemud's socket over libvirtd's, and go by the existence
 * of the file.  So do we, but never to ourselves: a daemon that sits in front of
 * libvirtd listens under virtqemud's name.  The choice is made once, at start: our
 * engine and all clients then talk to the same daemon.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_backend.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "config.h"

#define SOCKET_MODULAR "virtqemud-sock"
#define SOCKET_MONOLITHIC "libvirt-sock"

gchar *
virCheckpointBackendSocketDir(void)
{
    if (geteuid() == 0)
        return g_build_filename(VIR_CHECKPOINT_RUNSTATEDIR, "libvirt", NULL);
    return g_build_filename(g_get_user_runtime_dir(), "libvirt", NULL);
}

/* The path with its folder's links resolved: the file itself may not be there. */
static gchar *
virCheckpointBackendCanonical(const gchar *path)
{
    g_autofree gchar *absolute = g_canonicalize_filename(path, NULL);
    g_autofree gchar *dir = g_path_get_dirname(absolute);
    g_autofree gchar *name = g_path_get_basename(absolute);
    g_autofree char *real = realpath(dir, NULL);

    return g_build_filename(real ? real : dir, name, NULL);
}

gboolean
virCheckpointBackendSamePath(const gchar *one, const gchar *other)
{
    g_autofree gchar *first = virCheckpointBackendCanonical(one);
    g_autofree gchar *second = virCheckpointBackendCanonical(other);

    return g_str_equal(first, second);
}

gboolean
virCheckpointBackendIsStale(const gchar *path)
{
    VIR_CHECKPOINT_AUTOFD int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat sb;

    return fd >= 0 &&
           g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) <
               sizeof(address.sun_path) &&
           lstat(path, &sb) == 0 && S_ISSOCK(sb.st_mode) &&
           connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
           errno == ECONNREFUSED;
}

gchar *
virCheckpointBackendFind(const gchar *own)
{
    g_autofree gchar *dir = virCheckpointBackendSocketDir();
    g_autofree gchar *modular = g_build_filename(dir, SOCKET_MODULAR, NULL);
    g_autofree gchar *monolithic = g_build_filename(dir, SOCKET_MONOLITHIC, NULL);
    g_autofree gchar *program = g_find_program_in_path("virtqemud");

    if (own && virCheckpointBackendSamePath(own, modular))
        return g_steal_pointer(&monolithic);
    if (g_file_test(modular, G_FILE_TEST_EXISTS) &&
        !virCheckpointBackendIsStale(modular))
        return g_steal_pointer(&modular);
    if (g_file_test(monolithic, G_FILE_TEST_EXISTS))
        return g_steal_pointer(&monolithic);
    if (program || g_file_test("/usr/sbin/virtqemud", G_FILE_TEST_IS_EXECUTABLE))
        return g_steal_pointer(&modular);
    return g_steal_pointer(&monolithic);
}

gchar *
virCheckpointBackendUri(const gchar *path)
{
    g_autofree gchar *escaped = g_uri_escape_string(path, "/", FALSE);

    return g_strdup_printf("qemu:///%s?socket=%s",
                           geteuid() == 0 ? "system" : "session", escaped);
}

gboolean
virCheckpointBackendStartSession(const gchar *path, GError **error)
{
    g_autofree gchar *name = g_path_get_basename(path);
    const gchar *uri = g_str_equal(name, SOCKET_MODULAR)
                           ? "qemu:///session?mode=direct"
                           : "qemu:///session?mode=legacy";
    virConnectPtr conn = virConnectOpen(uri);

    if (!conn) {
        virErrorPtr last = virGetLastError();

        g_set_error(error, VIR_CHECKPOINT_LIBVIRT_ERROR,
                    last ? last->code : VIR_ERR_INTERNAL_ERROR, "%s",
                    last && last->message ? last->message : "unknown error");
        return FALSE;
    }
    virConnectClose(conn);
    return TRUE;
}
