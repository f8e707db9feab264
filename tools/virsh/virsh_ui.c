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

/* Nobody to tell when stderr or the log fails; main looks at stdout once, at the end.
 */
static void
virCheckpointVirshUiWrite(FILE *stream, const gchar *format, ...) G_GNUC_PRINTF(2, 3);

static void
virCheckpointVirshUiWrite(FILE *stream, const gchar *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vfprintf(stream, format, args);
    va_end(args);
}

static void
virCheckpointVirshUiLog(const virCheckpointVirshUi *ui, const gchar *line)
{
    g_autoptr(GDateTime) now = NULL;
    g_autofree gchar *stamp = NULL;

    if (!ui->log)
        return;
    now = g_date_time_new_now_local();
    stamp = g_date_time_format(now, "%Y.%m.%d %H:%M:%S");
    virCheckpointVirshUiWrite(ui->log, "[%s virsh %d] ERROR %s\n", stamp, (int)getpid(),
                              line);
    (void)fflush(ui->log);
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
    (void)fflush(ui->out);
    for (i = 0; lines[i]; i++) {
        virCheckpointVirshUiWrite(ui->err, "error: %s\n", lines[i]);
        virCheckpointVirshUiLog(ui, lines[i]);
    }
    (void)fflush(ui->err);
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
virCheckpointVirshUiPrint(const virCheckpointVirshUi *ui, const gchar *text)
{
    virCheckpointVirshUiWrite(ui->out, "%s", text);
}

void
virCheckpointVirshUiExtra(const virCheckpointVirshUi *ui, const gchar *text)
{
    if (!ui->quiet)
        virCheckpointVirshUiPrint(ui, text);
}

static gchar *
virCheckpointVirshUiSize(guint64 bytes)
{
    static const gchar *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    gdouble size = (gdouble)bytes;
    gsize i = 0;

    while (size >= 1024 && i + 1 < G_N_ELEMENTS(units)) {
        size /= 1024;
        i++;
    }
    return g_strdup_printf(i == 0 ? "%.0f %s" : "%.1f %s", size, units[i]);
}

/* "0:06", "1:02:03". */
static gchar *
virCheckpointVirshUiTime(guint64 seconds)
{
    if (seconds < 3600)
        return g_strdup_printf("%u:%02u", (guint)(seconds / 60), (guint)(seconds % 60));
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%02u:%02u", seconds / 3600,
                           (guint)(seconds / 60 % 60), (guint)(seconds % 60));
}

void
virCheckpointVirshUiProgress(const virCheckpointVirshUi *ui,
                             const virCheckpointVirshProgress *progress)
{
    guint64 left = progress->total - MIN(progress->done, progress->total);
    g_autofree gchar *done = virCheckpointVirshUiSize(progress->total - left);
    g_autofree gchar *total = virCheckpointVirshUiSize(progress->total);
    g_autofree gchar *rate = virCheckpointVirshUiSize(progress->rate);
    g_autoptr(GString) text = g_string_new(NULL);
    guint percent = 100;

    if (progress->total == 0)
        return;
    /* Not 100 before the end; in floating point, as left * 100 may overflow. */
    if (left > 0)
        percent =
            MIN(99, (guint)(100.0 - (gdouble)left * 100.0 / (gdouble)progress->total));
    g_string_append_printf(text, "%s of %s", done, total);
    if (progress->rate > 0)
        g_string_append_printf(text, ", %s/s", rate);
    if (progress->rate > 0 && left > 0) {
        g_autofree gchar *time =
            virCheckpointVirshUiTime((left + progress->rate - 1) / progress->rate);

        g_string_append_printf(text, ", %s left", time);
    }
    (void)fflush(ui->out);
    /* As long as the longest that it may have to cover. */
    virCheckpointVirshUiWrite(ui->err, "\rBlock Copy: [%3u %%] %-52s", percent,
                              text->str);
    (void)fflush(ui->err);
}

void
virCheckpointVirshUiDone(const virCheckpointVirshUi *ui, gint64 usec)
{
    if (ui->timing)
        virCheckpointVirshUiWrite(ui->out, "\n(Time: %.3f ms)\n\n",
                                  (gdouble)usec / 1000.0);
    else
        virCheckpointVirshUiExtra(ui, "\n");
    (void)fflush(ui->out);
}
