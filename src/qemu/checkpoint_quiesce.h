/*
 * checkpoint_quiesce.h: a guest's file systems, still for a moment
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_QUIESCE_H
#define VIR_CHECKPOINT_QUIESCE_H

#include "checkpoint_domain.h"
#include "checkpoint_store.h"

/** TRUE if the guest agent answers; else libvirt's error. */
gboolean
virCheckpointQuiesceAsk(virCheckpointDomainView *view, GError **error);

/** Freezes them through the guest agent.  FALSE: libvirt's error, as without an agent;
 * nothing is frozen then. */
gboolean
virCheckpointQuiesceFreeze(virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           GError **error);

/** Thaws what was frozen.  FALSE: a warning says why not, and settling the domain tries
 * again. */
gboolean
virCheckpointQuiesceThaw(virCheckpointStoreDomain *store,
                         virCheckpointDomainView *view);

/** Thaws what a daemon that died has left frozen.  Part of settling.  FALSE: the agent
 * does not answer yet, to be tried again. */
gboolean
virCheckpointQuiesceRecover(virCheckpointStoreDomain *store,
                            virCheckpointDomainView *view);

#endif
