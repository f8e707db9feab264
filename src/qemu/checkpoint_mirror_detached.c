/*
 * checkpoint_mirror_detached.c: a disk that was detached under its copy
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: through us a detach is refused while a copy of ours runs.  Past us libvirt
 * allows it, because it does not know of the bulk pass, and takes its nodes away, but
 * for those that our job holds: the image would stay locked for QEMU's life.  So when
 * a device went and the disk with it, the job ends as if the guest had stopped, only
 * that QEMU is there: our job, our nodes and the ones that libvirt left go first, then
 * the overlay, which has what the guest wrote last, is committed by qemu-img.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"
#include "checkpoint_mirrorpriv.h"

gboolean
virCheckpointMirrorIsDetached(const virCheckpointMirrorStep *step)
{
    return step->view && step->view->running &&
           !virCheckpointDomainFindDisk(step->view->disks, step->mirror->target);
}

gboolean
virCheckpointMirrorSweepDetached(const virCheckpointMirrorStep *step,
                                 gboolean *busy,
                                 GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};

    *busy = FALSE;
    if (!virCheckpointMirrorIsDetached(step))
        return TRUE;
    if (!virCheckpointMirrorSweep(step, busy, error))
        return FALSE;
    if (*busy)
        return TRUE;
    if (!(where.graph = virCheckpointGraphQuery(step->view->monitor, error)))
        return FALSE;
    virCheckpointMirrorDeleteOrphans(step, &where, mirror->overlayPath);
    virCheckpointMirrorDeleteOrphans(step, &where, mirror->sourcePath);
    return TRUE;
}
