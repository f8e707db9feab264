/*
 * checkpoint_def.h: <domaincheckpoint> XML <-> struct
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DEF_H
#define VIR_CHECKPOINT_DEF_H

#include <glib.h>

typedef enum {
    VIR_CHECKPOINT_DISK_DEFAULT, /* not said in the XML */
    VIR_CHECKPOINT_DISK_NONE,    /* checkpoint='no' */
    VIR_CHECKPOINT_DISK_BITMAP,  /* checkpoint='bitmap' */
    VIR_CHECKPOINT_DISK_LAST
} virCheckpointDiskType;

/** One <disk> of a checkpoint. */
typedef struct virCheckpointDiskDef {
    gchar *name; /* as given: target ("vda"); after virCheckpointDefAlignDisks the
                    target */
    virCheckpointDiskType type;
    gchar *bitmap; /* attribute, or NULL */
    gboolean hasSize;
    guint64 sizeBytes; /* attribute size, output only */
} virCheckpointDiskDef;

/** A checkpoint as the client sees it.  Plain data. */
typedef struct virCheckpointDef {
    gchar *name;
    gchar *description;  /* NULL if absent */
    gchar *parent;       /* name of the parent, or NULL */
    gint64 creationTime; /* seconds since the epoch, 0 = not given */
    GPtrArray *disks;    /* virCheckpointDiskDef*, NULL when the XML had no <disks> */
    /* the <domain> element as text, or NULL; copies share it: of a thousand checkpoints
     * of one domain it is by far the largest part */
    GRefString *domain;
    gboolean domainInactive; /* domain is an <inactiveDomain> (not used by libvirt 9:
                                FALSE) */
} virCheckpointDef;

virCheckpointDiskDef *
virCheckpointDiskDefNew(const gchar *name, virCheckpointDiskType type);
void
virCheckpointDiskDefFree(virCheckpointDiskDef *disk);
virCheckpointDef *
virCheckpointDefNew(void);
virCheckpointDef *
virCheckpointDefCopy(const virCheckpointDef *def);
void
virCheckpointDefFree(virCheckpointDef *def);
/** @text (or NULL), a copy of it, becomes @def's domain. */
void
virCheckpointDefSetDomain(virCheckpointDef *def, const gchar *text);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointDef, virCheckpointDefFree)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointDiskDef, virCheckpointDiskDefFree)

typedef enum {
    VIR_CHECKPOINT_DEF_PARSE_REDEFINE =
        1 << 0, /* parent, creationTime, domain, bitmap are read */
} virCheckpointDefParseFlags;

/**
 * virCheckpointDefParse:
 * @xml: one <domaincheckpoint>; @flags: virCheckpointDefParseFlags
 *
 * As libvirt 9's virDomainCheckpointDefParse: without REDEFINE <parent>,
 * <creationTime> and <domain> of the input are ignored; with it name and creationTime
 * are needed. The name may else be absent (NULL).
 *
 * Errors: VIR_ERR_XML_DETAIL (malformed), VIR_ERR_XML_ERROR (another root),
 * VIR_ERR_XML_INVALID_SCHEMA (against libvirt's schema: unknown or double elements, a
 * bitmap with checkpoint='no', a name that is not 1 to 200 letters, digits, '_', '-'
 * and '.', or begins with '.').
 */
virCheckpointDef *
virCheckpointDefParse(const gchar *xml, guint flags, GError **error);

/** Checks a checkpoint name given outside XML by the same rules: VIR_ERR_INVALID_ARG.
 */
gboolean
virCheckpointDefCheckName(const gchar *name, GError **error);

typedef enum {
    VIR_CHECKPOINT_DEF_FORMAT_NO_DOMAIN = 1 << 0,
    VIR_CHECKPOINT_DEF_FORMAT_SIZE = 1 << 1, /* size attributes of disks with hasSize */
} virCheckpointDefFormatFlags;

/** Returns: (transfer full): the XML, byte for byte as libvirt 9 lays it out (two-space
 * indent). */
gchar *
virCheckpointDefFormat(const virCheckpointDef *def, guint flags);

/** What the alignment must know of one disk of the domain. */
typedef struct virCheckpointDomainDisk {
    const gchar *target; /* "vda" */
    const gchar *source; /* path, or NULL */
    gboolean readOnly;
    gboolean empty;      /* no medium, or no format */
    gboolean qcow2;      /* driver type='qcow2' */
    const gchar *format; /* driver type, or NULL; for messages */
} virCheckpointDomainDisk;

/**
 * virCheckpointDefAlignDisks:
 * @def: with a name
 * @disks: virCheckpointDomainDisk*, all disks of the domain in its order
 * @redefine: the checkpoint exists: disks that the XML does not mention stay out, and
 *   what only matters to a new one (qcow2, bitmap's name) is not checked
 *
 * As libvirt 9's virDomainCheckpointAlignDisks and qemuCheckpointPrepare: afterwards
 * @def has one entry per disk of the domain in the domain's order, named by target,
 * type NONE or BITMAP; disks not mentioned are BITMAP if no <disks> was given and the
 * disk can hold one (writable, not empty) else NONE.  Unknown, duplicate and unsuitable
 * disks are VIR_ERR_CONFIG_UNSUPPORTED with libvirt's texts.  bitmap of a BITMAP disk
 * defaults to the name of the checkpoint.
 */
gboolean
virCheckpointDefAlignDisks(virCheckpointDef *def,
                           GPtrArray *disks,
                           gboolean redefine,
                           GError **error);

#endif
