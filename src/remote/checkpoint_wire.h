/*
 * checkpoint_wire.h: payloads of libvirt's RPC <-> structs
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_WIRE_H
#define VIR_CHECKPOINT_WIRE_H

#include <glib.h>

#include "checkpoint_protocol.h"

/** Numbers of the remote program; the struct of the arguments, then of the result. */
typedef enum {
    VIR_CHECKPOINT_PROC_DOMAIN_CREATE = 9,                /* DomainArgs */
    VIR_CHECKPOINT_PROC_DOMAIN_CREATE_XML = 10,           /* XmlFlags */
    VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE = 13,        /* DomainText */
    VIR_CHECKPOINT_PROC_DOMAIN_GET_XML_DESC = 14,         /* DomainFlags; Text */
    VIR_CHECKPOINT_PROC_DOMAIN_LOOKUP_BY_UUID = 24,       /* LookupUuid; DomainArgs */
    VIR_CHECKPOINT_PROC_DOMAIN_UNDEFINE = 35,             /* DomainArgs */
    VIR_CHECKPOINT_PROC_DOMAIN_SAVE = 55,                 /* DomainText */
    VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE_FLAGS = 161, /* DomainTextFlags */
    VIR_CHECKPOINT_PROC_EVENT_REGISTER_ANY = 167,         /* Int */
    VIR_CHECKPOINT_PROC_EVENT_DEREGISTER_ANY = 168,       /* Int */
    VIR_CHECKPOINT_PROC_DOMAIN_MANAGED_SAVE = 182,        /* DomainFlags */
    VIR_CHECKPOINT_PROC_SNAPSHOT_CREATE_XML = 185,        /* DomainTextFlags */
    VIR_CHECKPOINT_PROC_SNAPSHOT_GET_XML_DESC = 186,      /* CheckpointFlags; Text */
    VIR_CHECKPOINT_PROC_REVERT_TO_SNAPSHOT = 192,         /* CheckpointFlags */
    VIR_CHECKPOINT_PROC_DOMAIN_CREATE_WITH_FLAGS = 196,   /* DomainFlags */
    VIR_CHECKPOINT_PROC_DOMAIN_UNDEFINE_FLAGS = 231,      /* DomainFlags */
    VIR_CHECKPOINT_PROC_MIGRATE_PERFORM = 62,
    VIR_CHECKPOINT_PROC_MIGRATE_BEGIN3 = 213, /* these begin with a domain */
    VIR_CHECKPOINT_PROC_MIGRATE_PERFORM3 = 216,
    VIR_CHECKPOINT_PROC_DOMAIN_SAVE_FLAGS = 232,
    VIR_CHECKPOINT_PROC_MIGRATE_BEGIN3_PARAMS = 302,
    VIR_CHECKPOINT_PROC_MIGRATE_PERFORM3_PARAMS = 305,
    VIR_CHECKPOINT_PROC_DOMAIN_SAVE_PARAMS = 440,
    VIR_CHECKPOINT_PROC_BLOCK_JOB_ABORT = 237,     /* DomainTextFlags */
    VIR_CHECKPOINT_PROC_BLOCK_JOB_INFO = 238,      /* DomainTextFlags; JobInfo */
    VIR_CHECKPOINT_PROC_BLOCK_JOB_SET_SPEED = 239, /* DomainRate */
    VIR_CHECKPOINT_PROC_BLOCK_PULL = 240,          /* DomainRate */
    VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB = 241,     /* LegacyBlockJob */
    VIR_CHECKPOINT_PROC_BLOCK_RESIZE = 251,        /* DomainRate */
    VIR_CHECKPOINT_PROC_BLOCK_REBASE = 266,        /* Rebase */
    VIR_CHECKPOINT_PROC_LIST_ALL_DOMAINS = 273,    /* DomainsArgs; Domains */
    VIR_CHECKPOINT_PROC_BLOCK_COMMIT = 290,        /* Commit */
    VIR_CHECKPOINT_PROC_DOMAIN_CREATE_XML_WITH_FILES = 309, /* XmlFlags */
    VIR_CHECKPOINT_PROC_DOMAIN_CREATE_WITH_FILES = 310,     /* DomainFlags */
    VIR_CHECKPOINT_PROC_CALLBACK_REGISTER_ANY = 316,        /* Register; Int */
    VIR_CHECKPOINT_PROC_CALLBACK_DEREGISTER_ANY = 317,      /* Int */
    VIR_CHECKPOINT_PROC_EVENT_CALLBACK_BLOCK_JOB = 326,     /* BlockJob */
    VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB_2 = 339,            /* BlockJob */
    VIR_CHECKPOINT_PROC_BLOCK_COPY = 345,                   /* Copy */
    VIR_CHECKPOINT_PROC_DOMAIN_DETACH_DEVICE_ALIAS = 392,   /* DomainTextFlags */
    VIR_CHECKPOINT_PROC_CHECKPOINT_CREATE_XML = 411,   /* DomainTextFlags; Checkpoint */
    VIR_CHECKPOINT_PROC_CHECKPOINT_GET_XML_DESC = 412, /* CheckpointFlags; Text */
    VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_ALL = 413,     /* ListArgs; List */
    VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_CHILDREN = 414, /* ChildrenArgs; List */
    VIR_CHECKPOINT_PROC_CHECKPOINT_LOOKUP = 415,     /* DomainTextFlags; Checkpoint */
    VIR_CHECKPOINT_PROC_CHECKPOINT_GET_PARENT = 416, /* CheckpointFlags; Checkpoint */
    VIR_CHECKPOINT_PROC_CHECKPOINT_DELETE = 417,     /* CheckpointFlags */
    VIR_CHECKPOINT_PROC_BACKUP_BEGIN = 421,          /* Backup */
    VIR_CHECKPOINT_PROC_BACKUP_GET_XML_DESC = 422,   /* DomainFlags; Text */
} virCheckpointProcedure;

/** The one number of the QEMU program that concerns us. */
#define VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND 1 /* DomainTextFlags; Text */

/* virErrorDomain numbers that libvirt uses for the errors of these calls. */
#define VIR_CHECKPOINT_FROM_NONE 0
#define VIR_CHECKPOINT_FROM_XML 5
#define VIR_CHECKPOINT_FROM_QEMU 10
#define VIR_CHECKPOINT_FROM_DOMAIN 20
#define VIR_CHECKPOINT_FROM_CHECKPOINT 69

/** Frees what decoding a struct allocated: g_auto(virCheckpointProto...) = {0}. */
#define VIR_CHECKPOINT_WIRE_CLEAR(type)                                                \
    static inline void type##Clear(type *value)                                        \
    {                                                                                  \
        xdr_free((xdrproc_t)xdr_##type, (char *)value);                                \
    }                                                                                  \
    G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(type, type##Clear)

VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoError)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainArgs)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainFlags)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoXmlFlags)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainText)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainTextFlags)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainRate)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoRebase)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoCommit)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoCopy)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoBackup)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoCheckpointFlags)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoListArgs)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoChildrenArgs)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoRegister)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoInt)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomainsArgs)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoDomains)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoText)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoList)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoJobInfo)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoBlockJob)
VIR_CHECKPOINT_WIRE_CLEAR(virCheckpointProtoLegacyBlockJob)

/** Calls @what(virCheckpointProto@name) typed: see virCheckpointWireDecodeRaw(). */
#define virCheckpointWireDecode(type, payload, length, out)                            \
    (virCheckpointWireDecodeRaw((xdrproc_t)xdr_##type, payload, length,                \
                                (1 ? (out) : (type *)NULL)))
#define virCheckpointWireEncode(type, value)                                           \
    (virCheckpointWireEncodeRaw((xdrproc_t)xdr_##type, (1 ? (value) : (type *)NULL)))

/**
 * virCheckpointWireDecodeRaw:
 * @proc: xdr_... of the type; @out: zeroed
 *
 * Bytes behind the struct are ignored, as libvirt ignores them.
 *
 * Returns: TRUE, and the caller clears @out; FALSE for a payload that is too short or
 * over a limit, with nothing left in @out.
 */
gboolean
virCheckpointWireDecodeRaw(xdrproc_t proc,
                           const guint8 *payload,
                           gsize length,
                           gpointer out);

/** Returns: (transfer full): the bytes, or NULL if @value is over a limit. */
GBytes *
virCheckpointWireEncodeRaw(xdrproc_t proc, gconstpointer value);

#define VIR_CHECKPOINT_UUID_TEXT 37 /* with its NUL */

/** "xxxxxxxx-xxxx-..." in lower case, as libvirt prints it. */
void
virCheckpointWireUuidFormat(const virCheckpointProtoUuid uuid,
                            gchar text[VIR_CHECKPOINT_UUID_TEXT]);
/** Any spelling of 32 hex digits with dashes and spaces between. */
gboolean
virCheckpointWireUuidParse(const gchar *text, virCheckpointProtoUuid uuid);

/** The text of an optional string, or NULL; borrowed. */
const gchar *
virCheckpointWireOptString(const virCheckpointProtoOptString text);

#endif
