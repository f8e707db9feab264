/*
 * virsh_daemon.h: virtcheckpointd on demand
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_DAEMON_H
#define VIRSH_DAEMON_H

#include <glib.h>

#include "virsh_uri.h"

/**
 * virCheckpointVirshDaemonEnsure:
 * @route: a LOCAL one
 *
 * Returns at once if something accepts connections on the socket of @route, or if the
 * daemon sits in front of libvirt, under the name of virtqemud's socket: then @route is
 * moved there.  Else starts virtcheckpointd, which then leaves by itself when idle for
 * two minutes, and waits for it, ten seconds at most.
 *
 * Returns: TRUE, or FALSE with @error: why there is no daemon.
 */
gboolean
virCheckpointVirshDaemonEnsure(virCheckpointVirshRoute *route, GError **error);

/**
 * virCheckpointVirshDaemonFind:
 * @env: VIRT_CHECKPOINTD or NULL; @self: our own file, links resolved
 * @sbindir: where it is installed; then PATH is searched
 *
 * Returns: (transfer full): the daemon's file, or NULL with @error.  Run from the
 * build folder, virsh takes the daemon built beside it.
 */
gchar *
virCheckpointVirshDaemonFind(const gchar *env,
                             const gchar *self,
                             const gchar *sbindir,
                             GError **error);

#endif
