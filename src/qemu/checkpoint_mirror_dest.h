/*
 * checkpoint_mirror_dest.h: the <disk> that a mirror copies to
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRROR_DEST_H
#define VIR_CHECKPOINT_MIRROR_DEST_H

#include <glib.h>

/* All of it is pure: text in, text and structs out.  Thread: any. */

/** The <disk> that virDomainBlockCopy was given as destination. */
typedef struct virCheckpointMirrorDest {
    gchar *path;    /* absolute; of a network source its address as QEMU writes it */
    gchar *format;  /* "qcow2" or "raw"; NULL: not said */
    gboolean local; /* path is one in the file system */
    gboolean aside; /* not to be opened as one descriptor: network or encrypted */
} virCheckpointMirrorDest;

/**
 * virCheckpointMirrorDestParse:
 * @xml: as the caller gave it
 *
 * Returns: (transfer full): the destination, or NULL: VIR_ERR_XML_ERROR (not a <disk>),
 * VIR_ERR_NO_SOURCE (nothing named), VIR_ERR_CONFIG_UNSUPPORTED (other type or format),
 * VIR_ERR_INVALID_ARG (relative path).
 */
virCheckpointMirrorDest *
virCheckpointMirrorDestParse(const gchar *xml, GError **error);
void
virCheckpointMirrorDestFree(virCheckpointMirrorDest *dest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMirrorDest, virCheckpointMirrorDestFree)

/** Returns: (transfer full): @destXml with its path as that of a block device, whether
 * it was said to be a file or not. */
gchar *
virCheckpointMirrorDestAsBlock(const gchar *destXml, GError **error);

/** Returns: (transfer full): a <disk> for the image @path, a file or block device. */
gchar *
virCheckpointMirrorDestXml(const gchar *path, const gchar *format, gboolean block);

/**
 * virCheckpointMirrorCopyXml:
 * Returns: (transfer full): @destXml for libvirt's own shallow copy: the format given,
 * and an empty <backingStore/>, so that the chain ends at the target.
 */
gchar *
virCheckpointMirrorCopyXml(const gchar *destXml, const gchar *format, GError **error);

/**
 * virCheckpointMirrorReplaceSource:
 * @domainXml: inactive domain XML; @from: names the source as virCheckpointMirrorDest
 * does; @toXml: a <disk> with the new one
 *
 * The disk whose source is @from gets that of @toXml, and its format.  A <backingStore>
 * that describes the new source is pulled up one level, so that what lies below stays
 * described.
 *
 * Returns: (transfer full): the new XML; NULL without an error: no disk has @from.
 */
gchar *
virCheckpointMirrorReplaceSource(const gchar *domainXml,
                                 const gchar *from,
                                 const gchar *toXml,
                                 GError **error);

/** Returns: (transfer full) (nullable): what names the source of disk @target. */
gchar *
virCheckpointMirrorXmlSource(const gchar *domainXml, const gchar *target);

#endif
