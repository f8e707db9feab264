/*
 * checkpoint_mirror_verify.h: is the target really the disk?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRROR_VERIFY_H
#define VIR_CHECKPOINT_MIRROR_VERIFY_H

#include "checkpoint_job_record.h"

/** A compare that runs, or has run.  Thread: one at a time. */
typedef struct virCheckpointMirrorVerify virCheckpointMirrorVerify;

/** Starts to compare source and target of @job, which nobody writes to. */
virCheckpointMirrorVerify *
virCheckpointMirrorVerifyStart(const virCheckpointJobRecord *job, GError **error);
/** FALSE when its result is there. */
gboolean
virCheckpointMirrorVerifyRunning(virCheckpointMirrorVerify *verify);
/** The result of one that is not running: TRUE if they are equal; else
 * VIR_ERR_OPERATION_FAILED with the offset of the first difference. */
gboolean
virCheckpointMirrorVerifyResult(virCheckpointMirrorVerify *verify,
                                const virCheckpointJobRecord *job,
                                GError **error);
/** Ends it if it runs. */
void
virCheckpointMirrorVerifyFree(virCheckpointMirrorVerify *verify);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMirrorVerify, virCheckpointMirrorVerifyFree)

#endif
