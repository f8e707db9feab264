/*
 * checkpoint_mirror_request.h: what a mirror is asked for, and the XML it asks for
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRROR_REQUEST_H
#define VIR_CHECKPOINT_MIRROR_REQUEST_H

#include "checkpoint_def.h"
#include "checkpoint_engine.h"
#include "checkpoint_mirror_dest.h"

/* All of it is pure: text and structs in, text and structs out.  Thread: any. */

/** Flags and parameters that exclude each other: VIR_ERR_INVALID_ARG naming them. */
gboolean
virCheckpointMirrorRequestCheck(const virCheckpointMirrorRequest *request,
                                GError **error);

/**
 * virCheckpointMirrorSnapshotXml:
 * @disks: GPtrArray of gchar*: the targets of all disks of the domain
 *
 * Returns: (transfer full): a <domainsnapshot> that puts @overlayPath on disk @target
 * and says snapshot='no' for each other one: libvirt takes what is not listed, too.
 */
gchar *
virCheckpointMirrorSnapshotXml(const gchar *target,
                               const gchar *overlayPath,
                               GPtrArray *disks);

/** TRUE if the <mirror job='@job'> of disk @target is ready in live @domainXml. */
gboolean
virCheckpointMirrorXmlReady(const gchar *domainXml,
                            const gchar *target,
                            const gchar *job);

/** A checkpoint of disk @target alone; @disks: GPtrArray of gchar*, all targets. */
virCheckpointDef *
virCheckpointMirrorCheckpointDef(const gchar *name,
                                 const gchar *target,
                                 GPtrArray *disks);

/**
 * virCheckpointMirrorProgress:
 * Makes what is shown to clients grow only: @cur and @end (in/out) are changed so that
 * their quotient is not below @lastCur / @lastEnd and @cur stays below @end.
 */
void
virCheckpointMirrorProgress(guint64 lastCur,
                            guint64 lastEnd,
                            guint64 *cur,
                            guint64 *end);

#endif
