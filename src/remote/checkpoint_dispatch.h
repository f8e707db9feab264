/*
 * checkpoint_dispatch.h: the calls that are answered by us
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DISPATCH_H
#define VIR_CHECKPOINT_DISPATCH_H

#include "checkpoint_client.h"
#include "checkpoint_engine.h"

typedef struct virCheckpointDispatch virCheckpointDispatch;

/** @engine: borrowed, outlives the dispatch.  Thread: main. */
virCheckpointDispatch *
virCheckpointDispatchNew(virCheckpointEngine *engine);

/**
 * virCheckpointDispatchFree:
 * Waits for the calls that workers are at; the main context is iterated meanwhile,
 * because they may need it.  All clients must have been closed before, and none may
 * come afterwards.  NULL is accepted.  Thread: main.
 */
void
virCheckpointDispatchFree(virCheckpointDispatch *dispatch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointDispatch, virCheckpointDispatchFree)

/** What each client session calls; their data is the virCheckpointDispatch. */
const virCheckpointClientHooks *
virCheckpointDispatchHooks(void);

/** Sends a block job event of the engine's to the clients that registered for it.
 * Thread: main; does not block. */
void
virCheckpointDispatchBlockJob(virCheckpointDispatch *dispatch,
                              const virCheckpointEngineEvent *event);

#endif
