/*
 * checkpoint_supervisor.h: hold the sockets, restart the daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SUPERVISOR_H
#define VIR_CHECKPOINT_SUPERVISOR_H

#include "checkpoint_listener.h"

typedef enum {
    VIR_CHECKPOINT_SUPERVISOR_CHILD, /* this is a worker process: serve */
    VIR_CHECKPOINT_SUPERVISOR_OVER,  /* this is the supervisor: leave with the status */
    VIR_CHECKPOINT_SUPERVISOR_LAST
} virCheckpointSupervisorOutcome;

/**
 * virCheckpointSupervisorRun:
 * @listener: stays open in this process, every worker inherits it
 * @status: (out): with OVER, the exit status
 *
 * Forks workers, one after the other.  Must be called before there are threads.
 */
virCheckpointSupervisorOutcome
virCheckpointSupervisorRun(virCheckpointListener *listener, int *status);

/** In a worker: TRUE once its supervisor is gone and the sockets are the worker's. */
gboolean
virCheckpointSupervisorIsOrphan(void);

#endif
