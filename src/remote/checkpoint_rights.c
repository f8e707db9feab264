/*
 * checkpoint_rights.c: may this client do that?
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The engine acts as root, so each call that it is to execute is first put to libvirt
 * by the client itself, over the client's own backend connection, in a form that
 * libvirt authorises and then refuses: an XML that is none, the disk '', a checkpoint
 * named '/'.  Only the client's identity as libvirt knows it counts (behind virtproxyd
 * a peer uid proves nothing), and libvirt's checks of flags and parameters come for
 * free, with its own texts.
 *
 * In libvirt's QEMU driver a call is checked in this order (seen with 9.0.0 and the
 * polkit access driver): connection read-only, contradicting flags, mostly unknown
 * flags and parameter names, domain exists, ACL, then XML, disk or checkpoint.  Hence
 * an answer counts as permission only when it is one of the refusals that come after
 * the ACL; any other answer is not judged but handed to the client.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"

#include <libvirt/virterror.h>
#include <string.h>

virCheckpointFrame *
virCheckpointCallAskRaw(virCheckpointCall *call,
                        gint procedure,
                        xdrproc_t proc,
                        gconstpointer args)
{
    g_autoptr(GBytes) bytes = virCheckpointWireEncodeRaw(proc, args);

    if (!bytes)
        return NULL;
    return virCheckpointClientAsk(call->client, VIR_CHECKPOINT_PROGRAM_REMOTE,
                                  procedure, g_bytes_get_data(bytes, NULL),
                                  g_bytes_get_size(bytes));
}

gboolean
virCheckpointRightsJudge(virCheckpointCall *call,
                         virCheckpointFrame *answer,
                         virCheckpointRightsAccept accept)
{
    g_auto(virCheckpointProtoError) error = {0};

    if (!answer)
        return FALSE; /* the session ended: there is nobody to tell */
    if (answer->status == VIR_CHECKPOINT_FRAME_ERROR &&
        virCheckpointCallDecode(virCheckpointProtoError, answer, &error)) {
        if (accept(&error))
            return TRUE;
        virCheckpointCallPass(call, answer);
        return FALSE;
    }
    virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_INTERNAL_ERROR,
                          "cannot tell whether the client may make this call");
    return FALSE;
}

gboolean
virCheckpointRightsAskRaw(virCheckpointCall *call,
                          gint procedure,
                          xdrproc_t proc,
                          gconstpointer args,
                          virCheckpointRightsAccept accept)
{
    g_autoptr(virCheckpointFrame) answer =
        virCheckpointCallAskRaw(call, procedure, proc, args);

    return virCheckpointRightsJudge(call, answer, accept);
}

static gboolean
virCheckpointRightsBegins(const virCheckpointProtoOptString text, const gchar *prefix)
{
    const gchar *borrowed = virCheckpointWireOptString(text);

    return borrowed && g_str_has_prefix(borrowed, prefix);
}

gboolean
virCheckpointRightsXml(const virCheckpointProtoError *error)
{
    return error->code == VIR_ERR_XML_ERROR || error->code == VIR_ERR_XML_DETAIL;
}

gboolean
virCheckpointRightsCheckpointXml(const virCheckpointProtoError *error)
{
    /* libvirt 9.0.0 refuses, past the ACL, shut-off domains and the quiesce flag. */
    return virCheckpointRightsXml(error) ||
           (error->code == VIR_ERR_OPERATION_UNSUPPORTED &&
            error->domain == VIR_CHECKPOINT_FROM_QEMU) ||
           (error->code == VIR_ERR_INVALID_ARG &&
            virCheckpointRightsBegins(error->str1, "qemuCheckpointCreateXML") &&
            virCheckpointRightsBegins(error->message, "unsupported flags (0x2) "));
}

gboolean
virCheckpointRightsCheckpointName(const virCheckpointProtoError *error)
{
    /* Deleting on a shut-off domain is refused before the name is looked up. */
    return error->domain == VIR_CHECKPOINT_FROM_QEMU &&
           (error->code == VIR_ERR_NO_DOMAIN_CHECKPOINT ||
            error->code == VIR_ERR_OPERATION_UNSUPPORTED);
}

gboolean
virCheckpointRightsSnapshotName(const virCheckpointProtoError *error)
{
    return error->code == VIR_ERR_NO_DOMAIN_SNAPSHOT;
}

gboolean
virCheckpointRightsDisk(const virCheckpointProtoError *error)
{
    /* libvirt 9.0.0 refuses, past the ACL, domains that are off. */
    return (error->code == VIR_ERR_INVALID_ARG &&
            error->domain == VIR_CHECKPOINT_FROM_QEMU &&
            virCheckpointRightsBegins(error->str2, "disk ''")) ||
           (error->code == VIR_ERR_OPERATION_INVALID &&
            virCheckpointRightsBegins(error->str2, "domain is not running"));
}

gboolean
virCheckpointRightsNotDenied(const virCheckpointProtoError *error)
{
    switch (error->code) {
    case VIR_ERR_OPERATION_DENIED:
    case VIR_ERR_ACCESS_DENIED:
    case VIR_ERR_NO_DOMAIN:
    case VIR_ERR_AUTH_FAILED:
    case VIR_ERR_AUTH_CANCELLED:
    case VIR_ERR_AUTH_UNAVAILABLE:
    case VIR_ERR_RPC:
    case VIR_ERR_INVALID_CONN:
        return FALSE;
    default:
        return TRUE;
    }
}

gboolean
virCheckpointCallDomain(virCheckpointCall *call,
                        const virCheckpointProtoUuid uuid,
                        virCheckpointProtoDomainArgs *out)
{
    g_autoptr(virCheckpointFrame) answer = NULL;
    virCheckpointProtoLookupUuid args;

    memcpy(args.uuid, uuid, sizeof(args.uuid));
    answer = virCheckpointCallAsk(virCheckpointProtoLookupUuid, call,
                                  VIR_CHECKPOINT_PROC_DOMAIN_LOOKUP_BY_UUID, &args);
    return answer && answer->status == VIR_CHECKPOINT_FRAME_OK &&
           virCheckpointCallDecode(virCheckpointProtoDomainArgs, answer, out);
}
