/*
 * virsh_stock.h: the installed virsh
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_STOCK_H
#define VIRSH_STOCK_H

#include <glib.h>

/**
 * virCheckpointVirshStockFind:
 * @path: search path as in PATH, or NULL
 * @self: a file that is ourselves, such as /proc/self/exe
 * @skip: one more file to pass over, or NULL
 *
 * Returns: (transfer full): the first "virsh" in @path that can be run and is not
 * @self under another name; NULL with @error.
 */
gchar *
virCheckpointVirshStockFind(const gchar *path,
                            const gchar *self,
                            const gchar *skip,
                            GError **error);

/**
 * virCheckpointVirshStockExec:
 * @argv: all arguments, argv[0] included
 *
 * Becomes the installed virsh.  Returns only if that did not work: FALSE with @error.
 */
gboolean
virCheckpointVirshStockExec(gchar **argv, GError **error);

/**
 * virCheckpointVirshStockRun:
 * @argv: all arguments; @output: (out) (transfer full): what it wrote to stdout
 *
 * Runs the installed virsh, its stderr being ours.
 *
 * Returns: its exit status, or -1 with @error.
 */
gint
virCheckpointVirshStockRun(gchar **argv, gchar **output, GError **error);

#endif
