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

/* All of it is pure: text and structs in, text and structs out.  Thread: any. */

/** The <disk> that virDomainBlockCopy was given as destination. */
typedef struct virCheckpointMirrorDest {
    gchar *path;   /* absolute */
    gchar *format; /* "qcow2" or "raw"; NULL: not said */
} virCheckpointMirrorDest;

/**
 * virCheckpointMirrorDestParse:
 * @xml: as the caller gave it
 *
 * Returns: (transfer full): the destination, or NULL: VIR_ERR_XML_ERROR (not a <disk>),
 * VIR_ERR_NO_SOURCE (no file named), VIR_ERR_CONFIG_UNSUPPORTED (not a plain file,
 * other format, encryption), VIR_ERR_INVALID_ARG (relative path).
 */
virCheckpointMirrorDest *
virCheckpointMirrorDestParse(const gchar *xml, GError **error);
void
virCheckpointMirrorDestFree(virCheckpointMirrorDest *dest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMirrorDest, virCheckpointMirrorDestFree)

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

/**
 * virCheckpointMirrorCopyXml:
 * Returns: (transfer full): @destXml for libvirt's own shallow copy: the format given,
 * and an empty <backingStore/>, so that the chain ends at the target.
 */
gchar *
virCheckpointMirrorCopyXml(const gchar *destXml, const gchar *format, GError **error);

/**
 * virCheckpointMirrorReplaceSource:
 * @domainXml: inactive domain XML; @from, @to: image paths; @format: of @to
 *
 * The disk whose source is @from gets @to.  A <backingStore> that describes @to is
 * pulled up one level, so that what lies below stays described.
 *
 * Returns: (transfer full): the new XML; NULL without an error: no disk has @from.
 */
gchar *
virCheckpointMirrorReplaceSource(const gchar *domainXml,
                                 const gchar *from,
                                 const gchar *to,
                                 const gchar *format,
                                 GError **error);

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
