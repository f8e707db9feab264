/*
 * checkpoint_fault.h: named points between side effects, for tests
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_FAULT_H
#define VIR_CHECKPOINT_FAULT_H

#include <glib.h>

/**
 * virCheckpointFaultPoint:
 * @name: "operation/step", such as "create/after-transaction"
 *
 * Does nothing unless the build has fault points (meson -Dfaults=true) and
 * VIRT_CHECKPOINT_FAULTS names it.  The variable is a comma-separated list of
 * NAME=MODE: `fail` (an error VIR_ERR_OPERATION_FAILED naming the point), `exit` (the
 * process stops at once, as by SIGKILL), `hold:FILE` (waits until FILE exists);
 * `NAME@N=MODE` acts on the Nth hit only. `*` names every point: with @N the sweep's
 * counter. VIRT_CHECKPOINT_FAULTS_LOG names a file to which each point passed is
 * appended, one name a line.
 *
 * Returns: TRUE, or FALSE with @error set in mode `fail`.
 */
gboolean
virCheckpointFaultPoint(const gchar *name, GError **error);

#endif
