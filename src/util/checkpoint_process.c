/*
 * checkpoint_process.c: run helper programs such as qemu-img
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Helpers are started without a shell, with the C locale (their messages go into our
 * errors), with stdin from /dev/null and without our descriptors: GLib closes all but
 * the three standard ones in the child.
 *
 * A helper that was started may outlive us when we are killed.  Callers therefore let
 * helpers write only to files that nothing trusts yet (*.tmp).
 */

#include "config.h"

#include "checkpoint_process.h"

#include "checkpoint_error.h"
#include "checkpoint_fault.h"

#include <string.h>

#define VIR_CHECKPOINT_PROCESS_STDERR_BYTES 1000

/* The first lines of @text, joined by ", ", for an error message. */
static gchar *
virCheckpointProcessSummary(const gchar *text)
{
    g_autofree gchar *valid = g_utf8_make_valid(text ? text : "", -1);
    gchar *p = NULL;

    g_strstrip(valid);
    if (strlen(valid) > VIR_CHECKPOINT_PROCESS_STDERR_BYTES) {
        gchar *end = valid + VIR_CHECKPOINT_PROCESS_STDERR_BYTES;

        if (((guchar)*end & 0xC0) == 0x80)
            end = g_utf8_find_prev_char(valid, end);
        *end = '\0';
    }
    for (p = valid; *p; p++) {
        if (g_ascii_iscntrl(*p))
            *p = ' ';
    }
    return g_steal_pointer(&valid);
}

/* A helper that may change a file stands between two fault points. */
static gboolean
virCheckpointProcessPoint(const gchar *const *argv, const gchar *when, GError **error)
{
    g_autofree gchar *base = g_path_get_basename(argv[0]);
    g_autofree gchar *name = NULL;

    if (g_strcmp0(argv[1], "info") == 0)
        return TRUE;
    name = g_strdup_printf("run/%s-%s/%s", base, argv[1] ? argv[1] : "", when);
    return virCheckpointFaultPoint(name, error);
}

gboolean
virCheckpointProcessRun(const gchar *const *argv, gchar **output, GError **error)
{
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "LC_ALL", "C.UTF-8", TRUE);
    g_autofree gchar *out = NULL;
    g_autofree gchar *err = NULL;
    g_autofree gchar *summary = NULL;
    g_autoptr(GError) local = NULL;
    gint status = 0;

    g_assert(argv && argv[0]);

    if (!virCheckpointProcessPoint(argv, "before", error))
        return FALSE;
    if (!g_spawn_sync(NULL, (gchar **)argv, env, G_SPAWN_SEARCH_PATH, NULL, NULL, &out,
                      &err, &status, &local)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "run '%s': %s", argv[0], local->message);
        return FALSE;
    }
    if (!g_spawn_check_wait_status(status, &local)) {
        summary = virCheckpointProcessSummary(err);
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "run '%s': %s%s%s", argv[0], local->message, *summary ? ": " : "",
                    summary);
        return FALSE;
    }
    if (!virCheckpointProcessPoint(argv, "after", error))
        return FALSE;
    if (output)
        *output = g_steal_pointer(&out);
    return TRUE;
}
