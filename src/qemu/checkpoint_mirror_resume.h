/*
 * checkpoint_mirror_resume.h: a copy goes on where an earlier one ended
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRROR_RESUME_H
#define VIR_CHECKPOINT_MIRROR_RESUME_H

#include "checkpoint_resume_record.h"
#include "checkpoint_segments.h"

/** Takes out of @resumes (virCheckpointResumeRecord*), and removes from the store, what
 * nobody can take up any more: its target was changed, or is gone. */
void
virCheckpointMirrorResumeSift(virCheckpointStoreDomain *store, GPtrArray *resumes);

/**
 * virCheckpointMirrorResumePlan:
 * @fd: the target as it was opened and judged, or -1
 *
 * Completes the plan of a job: identity of its target, and what an earlier job left.
 * Says in the log why a copy starts over.
 */
void
virCheckpointMirrorResumePlan(virCheckpointStoreDomain *store,
                              virCheckpointJobRecord *job,
                              int fd);

/** Returns: (transfer full) (nullable): what @job takes up. */
virCheckpointResumeRecord *
virCheckpointMirrorResumeFind(virCheckpointStoreDomain *store,
                              const virCheckpointJobRecord *job);

/** The job reached its end: nothing is left to be taken up. */
void
virCheckpointMirrorResumeForget(virCheckpointStoreDomain *store,
                                const virCheckpointJobRecord *job);

#endif
