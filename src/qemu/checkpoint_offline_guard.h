/*
 * checkpoint_offline_guard.h: no start of a guest while one of its images is open
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OFFLINE_GUARD_H
#define VIR_CHECKPOINT_OFFLINE_GUARD_H

#include "checkpoint_domain.h"

/**
 * virCheckpointOfflineGuard:
 * @view: of a domain that is off
 * @targets: (element-type utf8): the disks that a storage daemon is to open
 *
 * Locks the images of the domain before those, as a program does that lets nobody write
 * to them, until virCheckpointOfflineUnguard().
 *
 * Returns: FALSE with @error if somebody writes to one of them.
 */
gboolean
virCheckpointOfflineGuard(virCheckpointDomainView *view,
                          GPtrArray *targets,
                          GError **error);
/** The storage daemon has @targets open: the images behind those are locked as well,
 * until virCheckpointOfflineUnguardRest(). */
gboolean
virCheckpointOfflineGuardRest(virCheckpointDomainView *view,
                              GPtrArray *targets,
                              GError **error);
/** The storage daemon is about to end. */
void
virCheckpointOfflineUnguardRest(virCheckpointDomainView *view);
/** A storage daemon of @view's has ended, or none was started. */
void
virCheckpointOfflineUnguard(virCheckpointDomainView *view);

/**
 * virCheckpointOfflineHold:
 * The same for a copy, until virCheckpointOfflineRelease(): @id is the job's.  What
 * cannot be locked is not.  Again the images before @targets, and when those are open
 * the others by virCheckpointOfflineHoldRest().
 */
void
virCheckpointOfflineHold(virCheckpointDomainView *view,
                         GPtrArray *targets,
                         const gchar *id);
void
virCheckpointOfflineHoldRest(const gchar *id);
void
virCheckpointOfflineRelease(const gchar *id);
/** @view's images are about to be opened read-write: copies of the domain lend their
 * locks until virCheckpointOfflineUnguard().  Under the domain's slot. */
void
virCheckpointOfflineLend(virCheckpointDomainView *view);

#endif
