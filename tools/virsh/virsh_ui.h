/*
 * virsh_ui.h: what the user sees, as stock virsh words it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_UI_H
#define VIRSH_UI_H

#include <glib.h>
#include <stdio.h>

typedef struct {
    FILE *out;
    FILE *err;
    FILE *log; /* -l, or NULL */
    gboolean quiet;
    gboolean timing;
} virCheckpointVirshUi;

/** "error: " and @text on err, and in the log; each line of @text by itself. */
void
virCheckpointVirshUiError(const virCheckpointVirshUi *ui, const gchar *format, ...)
    G_GNUC_PRINTF(2, 3);

/** The last error of libvirt in this thread, if there is one; it is then forgotten. */
void
virCheckpointVirshUiLibvirtError(const virCheckpointVirshUi *ui);

/** On out. */
void
virCheckpointVirshUiPrint(const virCheckpointVirshUi *ui, const gchar *text);

/** On out; nothing with -q. */
void
virCheckpointVirshUiExtra(const virCheckpointVirshUi *ui, const gchar *text);

/** How a copy gets on. */
typedef struct {
    guint64 done; /* bytes */
    guint64 total;
    guint64 rate; /* bytes per second, or 0: not known yet */
} virCheckpointVirshProgress;

/** "Block Copy: [ 42 %] 4.2 MiB of 10.0 MiB, 1.0 MiB/s, 0:06 left" over the line on
 * err; with "100 %" when nothing is left. */
void
virCheckpointVirshUiProgress(const virCheckpointVirshUi *ui,
                             const virCheckpointVirshProgress *progress);

/** What stock prints after each command: a line's end, or with -t the time. */
void
virCheckpointVirshUiDone(const virCheckpointVirshUi *ui, gint64 usec);

#endif
