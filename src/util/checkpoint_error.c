/*
 * checkpoint_error.c: one error domain whose codes are libvirt's
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A client sees three things of an error: number, domain and sentence.  Stock libvirt
 * makes the sentence from a fixed text for the number and the detail of the place that
 * failed.  We keep the detail alone in the GError, so that layers can put their
 * "verb 'object': " in front of it, and add the fixed text at the edge, in
 * virCheckpointErrorMessage().
 *
 * The texts are those that libvirt 9.0 prints; a unit test compares them with the
 * library that is installed.  An error that came from libvirt is complete already.
 */

#include "config.h"

#include "checkpoint_error.h"

#include <string.h>

/* Longer messages can make a reply larger than what the client library accepts. */
#define VIR_CHECKPOINT_ERROR_MAX_BYTES 4096

typedef struct virCheckpointErrorText {
    virErrorNumber code;
    const gchar *alone;  /* sentence when there is no detail */
    const gchar *before; /* what stands before the detail */
    const gchar *after;  /* and after it, or NULL */
} virCheckpointErrorText;

/* Most sentences are "TEXT" alone and "TEXT: DETAIL" with a detail. */
#define TEXT(code, text)                                                               \
    {                                                                                  \
        code, text, text ": ", NULL                                                    \
    }

static const virCheckpointErrorText virCheckpointErrorTexts[] = {
    TEXT(VIR_ERR_INTERNAL_ERROR, "internal error"),
    {VIR_ERR_NO_MEMORY, "out of memory", "out of memory: ", NULL},
    TEXT(VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver"),
    {VIR_ERR_NO_CONNECT, "no connection driver available",
     "no connection driver available for ", NULL},
    {VIR_ERR_INVALID_CONN, "invalid connection pointer in",
     "invalid connection pointer in ", NULL},
    {VIR_ERR_INVALID_DOMAIN, "invalid domain pointer in", "invalid domain pointer in ",
     NULL},
    TEXT(VIR_ERR_INVALID_ARG, "invalid argument"),
    TEXT(VIR_ERR_OPERATION_FAILED, "operation failed"),
    TEXT(VIR_ERR_CALL_FAILED, "library call failed"),
    {VIR_ERR_XML_ERROR, "XML description is invalid or not well formed",
     "XML error: ", NULL},
    {VIR_ERR_DOM_EXIST, "this domain exists already", "domain ", " exists already"},
    {VIR_ERR_OPERATION_DENIED, "operation forbidden for read only access",
     "operation forbidden: ", NULL},
    {VIR_ERR_XML_DETAIL, "parser error", "", NULL},
    {VIR_ERR_SYSTEM_ERROR, "system call error", "", NULL},
    {VIR_ERR_RPC, "RPC error", "", NULL},
    TEXT(VIR_ERR_NO_DOMAIN, "Domain not found"),
    TEXT(VIR_ERR_AUTH_FAILED, "authentication failed"),
    TEXT(VIR_ERR_NO_SECURITY_MODEL, "Security model not found"),
    TEXT(VIR_ERR_OPERATION_INVALID, "Requested operation is not valid"),
    TEXT(VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration"),
    TEXT(VIR_ERR_OPERATION_TIMEOUT, "Timed out during operation"),
    TEXT(VIR_ERR_INVALID_DOMAIN_SNAPSHOT, "Invalid domain snapshot"),
    TEXT(VIR_ERR_NO_DOMAIN_SNAPSHOT, "Domain snapshot not found"),
    TEXT(VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported"),
    TEXT(VIR_ERR_OPERATION_ABORTED, "operation aborted"),
    TEXT(VIR_ERR_OVERFLOW, "numerical overflow"),
    TEXT(VIR_ERR_BLOCK_COPY_ACTIVE, "block copy still active"),
    TEXT(VIR_ERR_OPERATION_UNSUPPORTED, "Operation not supported"),
    TEXT(VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding"),
    TEXT(VIR_ERR_RESOURCE_BUSY, "resource busy"),
    TEXT(VIR_ERR_ACCESS_DENIED, "access denied"),
    TEXT(VIR_ERR_XML_INVALID_SCHEMA, "XML document failed to validate against schema"),
    TEXT(VIR_ERR_AUTH_UNAVAILABLE, "authentication unavailable"),
    TEXT(VIR_ERR_DEVICE_MISSING, "device not found"),
    TEXT(VIR_ERR_INVALID_DOMAIN_CHECKPOINT, "Invalid domain checkpoint"),
    TEXT(VIR_ERR_NO_DOMAIN_CHECKPOINT, "Domain checkpoint not found"),
    TEXT(VIR_ERR_NO_DOMAIN_BACKUP, "Domain backup job id not found"),
    TEXT(VIR_ERR_CHECKPOINT_INCONSISTENT, "checkpoint inconsistent"),
    TEXT(VIR_ERR_MULTIPLE_DOMAINS, "multiple matching domains found"),
};

GQuark
virCheckpointErrorQuark(void)
{
    return g_quark_from_static_string("virtcheckpoint-error");
}

GQuark
virCheckpointLibvirtErrorQuark(void)
{
    return g_quark_from_static_string("virtcheckpoint-libvirt-error");
}

gint
virCheckpointErrorCode(const GError *error)
{
    g_assert(error);

    if (error->domain != VIR_CHECKPOINT_ERROR &&
        error->domain != VIR_CHECKPOINT_LIBVIRT_ERROR)
        return VIR_ERR_OPERATION_FAILED;
    return error->code > 0 ? error->code : VIR_ERR_INTERNAL_ERROR;
}

static gchar *
virCheckpointErrorCompose(gint code, const gchar *detail)
{
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(virCheckpointErrorTexts); i++) {
        const virCheckpointErrorText *text = &virCheckpointErrorTexts[i];

        if ((gint)text->code != code)
            continue;
        if (!detail || !*detail)
            return g_strdup(text->alone);
        return g_strconcat(text->before, detail, text->after, NULL);
    }
    return g_strdup(detail ? detail : "");
}

gchar *
virCheckpointErrorMessage(const GError *error)
{
    g_autofree gchar *full = NULL;
    gchar *text = NULL;

    g_assert(error);

    if (error->domain == VIR_CHECKPOINT_LIBVIRT_ERROR)
        full = g_strdup(error->message);
    else
        full = virCheckpointErrorCompose(virCheckpointErrorCode(error), error->message);

    text = g_utf8_make_valid(full, -1);
    if (strlen(text) > VIR_CHECKPOINT_ERROR_MAX_BYTES) {
        gchar *end = text + VIR_CHECKPOINT_ERROR_MAX_BYTES;

        /* The byte at the cut must begin a character, else the cut is inside one. */
        if (((guchar)*end & 0xC0) == 0x80)
            end = g_utf8_find_prev_char(text, end);
        *end = '\0';
    }
    return text;
}
