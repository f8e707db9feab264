/*
 * checkpoint_domain.h: a domain, its disks and its monitor for one operation
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DOMAIN_H
#define VIR_CHECKPOINT_DOMAIN_H

#include <libvirt/libvirt.h>

#include "checkpoint_nodes.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virDomain, virDomainFree)

/** A disk of the domain's live (or, shut off, inactive) XML. */
typedef struct virCheckpointDisk {
    gchar *target; /* "vda" */
    gchar *alias;  /* "virtio-disk0"; NULL when shut off */
    gchar *source; /* path of a file or block source, or NULL (network) */
    gchar *type;   /* "file", "block", "network", "volume", ... */
    gchar *format; /* driver type, or NULL */
    gboolean readOnly;
    gboolean empty;
    gboolean cdromOrFloppy;
    gboolean mirrored; /* a <mirror> is in the XML: libvirt has a block job */
    gboolean copied;   /* it is a copy's */
    gchar *copyTo;     /* the file or device to which that goes, or NULL (network) */
} virCheckpointDisk;

/** Converts libvirt's last error of this thread into @error. Always returns FALSE. */
gboolean
virCheckpointDomainSetError(GError **error);

/** Returns: (transfer full): GPtrArray of virCheckpointDisk*, from domain XML text. */
GPtrArray *
virCheckpointDomainParseDisks(const gchar *xml, GError **error);
void
virCheckpointDiskFree(virCheckpointDisk *disk);
/** The disk with target @name, or whose source path is @name; NULL if none. Borrowed.
 */
const virCheckpointDisk *
virCheckpointDomainFindDisk(GPtrArray *disks, const gchar *name);

/**
 * virCheckpointDomainComplete:
 * @xml: from libvirt, with VIR_DOMAIN_XML_MIGRATABLE; @live: without, or NULL
 * Returns: (transfer full): @xml with the two devices that this flag leaves out for the
 * sake of old versions (PS/2 keyboard, audio of type none), where libvirt would print
 * them
 */
gchar *
virCheckpointDomainComplete(const gchar *xml, const gchar *live);

/** The view of one domain for the length of one operation. */
typedef struct virCheckpointDomainView {
    virConnectPtr conn;  /* borrowed */
    virDomainPtr domain; /* NULL: libvirt does not know it any more */
    gchar *uuid;
    gchar *name;
    gboolean running;
    gchar *xml; /* live XML when running, else inactive, or what was saved with the
                   memory of a managed save; no security info */
    GPtrArray *disks;
    /* When not running NULL, or a storage daemon (checkpoint_offline.h) */
    virCheckpointMonitor *monitor;
    gboolean writable;  /* that daemon has the images open read-write */
    GArray *guards;     /* int: locks on the other images meanwhile, or NULL ... */
    GArray *guardsRest; /* ... those behind the first one that is open */
    struct virCheckpointOfflineWitness *witness; /* of what it writes, or NULL */
} virCheckpointDomainView;

/** Looks the domain up on @conn. VIR_ERR_NO_DOMAIN if there is none. */
virCheckpointDomainView *
virCheckpointDomainViewNew(virConnectPtr conn, const gchar *uuid, GError **error);
/** FALSE with VIR_ERR_OPERATION_INVALID while the domain goes to another host: QEMU has
 * given its images up and shows none of their bitmaps.  (On the other host libvirt lets
 * nobody to the monitor before QEMU has them.) */
gboolean
virCheckpointDomainViewIsStill(virCheckpointDomainView *view, GError **error);
/** Reads XML and disks again (after a snapshot or pivot); ends a storage daemon. */
gboolean
virCheckpointDomainViewRefresh(virCheckpointDomainView *view, GError **error);
void
virCheckpointDomainViewFree(virCheckpointDomainView *view);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointDomainView, virCheckpointDomainViewFree)

#endif
