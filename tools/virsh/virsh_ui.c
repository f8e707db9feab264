/*
 * virsh_ui.c: what the user sees, as stock virsh words it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Scripts read these lines, so they are stock's to the byte (9.0.0): results on stdout
 * with their line's end printed after the command, errors and progress on stderr.
 */

#include "config.h"

#include "virsh_ui.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <unistd.h>

static void
virCheckpointVirshUiLog(const virCheckpointVirshUi *ui, const gchar *line)
{
    g_autoptr(GDateTime) now = NULL;
    g_autofree gchar *stamp = NULL;

    if (!ui->log)
        return;
    now = g_date_time_new_now_local();
    stamp = g_date_time_format(now, "%Y.%m.%d %H:%M:%S");
    fprintf(ui->log, "[%s virsh %d] ERROR %s\n", stamp, (int)getpid(), line);
    fflush(ui->log);
}

void
virCheckpointVirshUiError(const virCheckpointVirshUi *ui, const gchar *format, ...)
{
    g_autofree gchar *text = NULL;
    g_auto(GStrv) lines = NULL;
    va_list args;
    gsize i;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    lines = g_strsplit(text, "\n", -1);
    fflush(ui->out);
    for (i = 0; lines[i]; i++) {
        fprintf(ui->err, "error: %s\n", lines[i]);
        virCheckpointVirshUiLog(ui, lines[i]);
    }
    fflush(ui->err);
}

void
virCheckpointVirshUiLibvirtError(const virCheckpointVirshUi *ui)
{
    const gchar *message;

    if (!virGetLastError())
        return;
    message = virGetLastErrorMessage();
    virCheckpointVirshUiError(ui, "%s", message ? message : "unknown error");
    virResetLastError();
}

void
virCheckpointVirshUiExtra(const virCheckpointVirshUi *ui, const gchar *text)
{
    if (!ui->quiet)
        fputs(text, ui->out);
}

void
virCheckpointVirshUiProgress(const virCheckpointVirshUi *ui,
                             guint64 remaining,
                             guint64 total)
{
    guint percent = 100;

    if (total == 0)
        return;
    /* Not 100 before the end; in floating point, as remaining * 100 may overflow. */
    if (remaining > 0)
        percent = MIN(99, (guint)(100.0 - (gdouble)remaining * 100.0 / (gdouble)total));
    fflush(ui->out);
    fprintf(ui->err, "\rBlock Copy: [%3u %%]", percent);
    fflush(ui->err);
}

void
virCheckpointVirshUiDone(const virCheckpointVirshUi *ui, gint64 usec)
{
    if (ui->timing)
        fprintf(ui->out, "\n(Time: %.3f ms)\n\n", (gdouble)usec / 1000.0);
    else
        virCheckpointVirshUiExtra(ui, "\n");
    fflush(ui->out);
}
