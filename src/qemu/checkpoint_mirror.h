/*
 * checkpoint_mirror.h: what the mirror module gives to the engine
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The calls that clients reach (virCheckpointEngineMirror..., ...HidesJob,
 * ...HasMirror) are declared in checkpoint_engine.h and live in the same module.
 */

#ifndef VIR_CHECKPOINT_MIRROR_H
#define VIR_CHECKPOINT_MIRROR_H

#include "checkpoint_domain.h"
#include "checkpoint_engine.h"
#include "checkpoint_store.h"

/** At the end of virCheckpointEngineNew(); mirrors (the hash) exists.  Thread: main. */
gboolean
virCheckpointMirrorInit(virCheckpointEngine *engine, GError **error);

/** At the start of virCheckpointEngineFree(): stopping is set, the pool still runs and
 * is drained afterwards. Thread: main. */
void
virCheckpointMirrorStop(virCheckpointEngine *engine);

/** At its end: no thread is left.  Frees what the hash holds. */
void
virCheckpointMirrorFini(virCheckpointEngine *engine);
/** Guests may have been started and stopped unseen. */
void
virCheckpointMirrorEventsMissed(virCheckpointEngine *engine);

/**
 * virCheckpointMirrorRecover:
 * @store: the domain's slot, held by the caller; @view: fresh; the domain may be shut
 * off
 * @job: a job record found in the store
 *
 * Called by settling for each job record, before the invariant is looked at.  A job
 * that runs in this process is left alone.  When TRUE: taken up again (in the pool),
 * finished or undone, and the domain may be used.  May call
 * virCheckpointDomainViewRefresh() on @view.
 */
gboolean
virCheckpointMirrorRecover(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           const virCheckpointJobRecord *job,
                           GError **error);

/** A device was taken out of the domain.  Main context: must not block. */
void
virCheckpointMirrorDeviceEvent(virCheckpointEngine *engine, const gchar *uuid);

/** A lifecycle event (virDomainEventType).  Main context: must not block. */
void
virCheckpointMirrorDomainEvent(virCheckpointEngine *engine,
                               const gchar *uuid,
                               gint event,
                               gint detail);

/** A block job event of libvirt (BLOCK_JOB_2: @disk is the target).  Main context: must
 * not block. */
void
virCheckpointMirrorBlockJobEvent(virCheckpointEngine *engine,
                                 const gchar *uuid,
                                 const gchar *disk,
                                 gint type,
                                 gint status);

/** QEMU's BLOCK_JOB_COMPLETED: @details is its data.  Libvirt says of a job that
 * fails while it is being ended that it was cancelled, as of one that ends well.
 * Main context: must not block. */
void
virCheckpointMirrorQemuJobEvent(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const gchar *details);

#endif
