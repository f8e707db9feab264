/*
 * libvirt-checkpoint.h: what clients of virtcheckpointd add to libvirt's API
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * There is no library to link: the constants below name typed parameters of
 * virDomainBlockCopy that virtcheckpointd understands and stock libvirt does not.
 */

#ifndef LIBVIRT_CHECKPOINT_H
#define LIBVIRT_CHECKPOINT_H

/**
 * VIR_CHECKPOINT_BLOCK_COPY_BITMAP:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_STRING.
 *
 * The name of a checkpoint of the domain: only what changed on the disk since that
 * checkpoint is copied.  Needs VIR_DOMAIN_BLOCK_COPY_REUSE_EXT: the target exists
 * and holds the disk as it was at that checkpoint.
 *
 * With this parameter, or with VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT, the flag
 * VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB is accepted and not needed.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_BITMAP "bitmap"

/**
 * VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_STRING.
 *
 * The name of a checkpoint to create at the moment that the target stands for, so
 * that the next incremental copy can start there.  It covers this disk only.
 * Without VIR_CHECKPOINT_BLOCK_COPY_BITMAP: a full copy and its checkpoint.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT "checkpoint"

/**
 * VIR_CHECKPOINT_BLOCK_COPY_FINISH:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_BOOLEAN.
 *
 * The caller will not pivot.  When true the target stands for the disk at the
 * moment at which the call was answered; the job has no mirror phase and no READY
 * event: it ends by itself, with VIR_DOMAIN_BLOCK_JOB_COMPLETED, once the target is
 * complete and flushed.  Only together with one of the two parameters above.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_FINISH "finish"

/**
 * VIR_CHECKPOINT_BLOCK_COPY_VERIFY:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_BOOLEAN.
 *
 * When true, which needs VIR_CHECKPOINT_BLOCK_COPY_FINISH, all of the target is
 * compared with the disk of the moment that it stands for, before the job ends.  The
 * guest runs on meanwhile.  If they differ the job fails; the error names the offset
 * of the first difference.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_VERIFY "verify"

/**
 * VIR_CHECKPOINT_BLOCK_COPY_PIVOT:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_BOOLEAN.
 *
 * The caller will pivot.  When true, a target onto which the guest could not move
 * without its checkpoints is refused here and not at the pivot.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_PIVOT "pivot"

/**
 * VIR_CHECKPOINT_BLOCK_COPY_END_CHECKPOINTS:
 * virDomainBlockCopy typed parameter, VIR_TYPED_PARAM_BOOLEAN.
 *
 * When true the guest may be pivoted onto a target that keeps no bitmap (raw, or qcow2
 * before version 3).  The checkpoints of the disk end there: they stay, and using them
 * is VIR_ERR_CHECKPOINT_INCONSISTENT.  Excludes VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT
 * and VIR_CHECKPOINT_BLOCK_COPY_FINISH.
 */
#define VIR_CHECKPOINT_BLOCK_COPY_END_CHECKPOINTS "end-checkpoints"

#endif /* LIBVIRT_CHECKPOINT_H */
