/*
 * checkpoint_process.h: run helper programs such as qemu-img
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_PROCESS_H
#define VIR_CHECKPOINT_PROCESS_H

#include <glib.h>

/**
 * virCheckpointProcessRun:
 * @argv: NULL-terminated, argv[0] found through PATH; no shell
 * @output: (out) (optional) (transfer full): what it wrote to stdout
 *
 * LC_ALL=C.UTF-8, stdin from /dev/null.  Exit status other than 0 is
 * VIR_ERR_OPERATION_FAILED with the program's name and its first lines of stderr.
 * Thread: any; blocks until the program ends.
 */
gboolean
virCheckpointProcessRun(const gchar *const *argv, gchar **output, GError **error);

#endif
