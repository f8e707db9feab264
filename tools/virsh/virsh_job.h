/*
 * virsh_job.h: waiting for a block copy, and ending it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_JOB_H
#define VIRSH_JOB_H

#include <glib.h>
#include <libvirt/libvirt.h>

#include "virsh_ui.h"

/** What waiting asks of libvirt and of the terminal; tests bring their own. */
typedef struct {
    /** 1 and sets @info: a job; 0: none; -1: libvirt's error is set. */
    gint (*info)(gpointer opaque, virDomainBlockJobInfo *info);
    /** virDomainBlockJobAbort. */
    gint (*abort)(gpointer opaque, guint flags);
    /** Sleeps up to @ms, shorter when an event comes.  Returns its
     * virConnectDomainEventBlockJobStatus, or -1 if none has come so far. */
    gint (*event)(gpointer opaque, guint ms);
    /** A clock that does not jump, in milliseconds. */
    gint64 (*now)(gpointer opaque);
    /** Whether the user pressed Ctrl-C. */
    gboolean (*interrupted)(gpointer opaque);
    /** (transfer full) (nullable): why the job failed, as far as can be told. */
    gchar *(*why)(gpointer opaque);
} virCheckpointVirshJobOps;

typedef enum {
    VIR_CHECKPOINT_VIRSH_JOB_EVENTS = 1 << 0,  /* events of the job do arrive */
    VIR_CHECKPOINT_VIRSH_JOB_WAIT = 1 << 1,    /* --wait, or what implies it */
    VIR_CHECKPOINT_VIRSH_JOB_VERBOSE = 1 << 2, /* --verbose */
    VIR_CHECKPOINT_VIRSH_JOB_ASYNC = 1 << 3,   /* --async */
    VIR_CHECKPOINT_VIRSH_JOB_PIVOT = 1 << 4,   /* --pivot */
    VIR_CHECKPOINT_VIRSH_JOB_FINISH = 1 << 5,  /* --finish: the job ends by itself */
} virCheckpointVirshJobFlags;

/**
 * virCheckpointVirshJobFollow:
 * @path: the disk as the user named it, for messages
 * @flags: virCheckpointVirshJobFlags
 * @timeoutMs: abort the job after that long; 0: never
 *
 * Follows a job that was just started to where the user wants it, and prints what
 * stock prints.  Thread: any; blocks.
 *
 * Returns: TRUE if the copy got there.
 */
gboolean
virCheckpointVirshJobFollow(const virCheckpointVirshJobOps *ops,
                            gpointer opaque,
                            const virCheckpointVirshUi *ui,
                            const gchar *path,
                            guint flags,
                            guint timeoutMs);

#endif
