/*
 * checkpoint_dispatch_domain.c: domains come and go
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A start is held back until the engine has settled what an earlier operation left:
 * a guest that boots from the wrong file of an unfinished step would lose its writes.
 *
 * Undefine treats our checkpoints as libvirt does its own: a shut-off domain that has
 * some is not undefined without the flag for their metadata; with it ours are dropped
 * after libvirt's good reply, and before the client sees that reply.  An active domain
 * only becomes transient and keeps them.
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_xml.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

/** The uuid of the domain that the call starts; FALSE if it cannot be told. */
static gboolean
virCheckpointDispatchStartUuid(virCheckpointCall *call, virCheckpointProtoUuid uuid)
{
    g_auto(virCheckpointProtoDomainArgs) args = {0};
    g_auto(virCheckpointProtoXmlFlags) create = {0};
    g_autoptr(xmlDoc) doc = NULL;
    g_autofree gchar *text = NULL;

    switch (call->frame->procedure) {
    case VIR_CHECKPOINT_PROC_DOMAIN_CREATE_XML:
    case VIR_CHECKPOINT_PROC_DOMAIN_CREATE_XML_WITH_FILES:
        /* A transient domain: without a uuid it is a new one. */
        if (!virCheckpointCallDecode(virCheckpointProtoXmlFlags, call->frame,
                                     &create) ||
            !(doc = virCheckpointXmlParse(create.xml, "(domain)", "domain", NULL)))
            return FALSE;
        text = virCheckpointXmlString(xmlDocGetRootElement(doc), "string(uuid)");
        return text && virCheckpointWireUuidParse(text, uuid);
    default:
        if (!virCheckpointCallDecode(virCheckpointProtoDomainArgs, call->frame, &args))
            return FALSE;
        memcpy(uuid, args.dom.uuid, sizeof(args.dom.uuid));
        return TRUE;
    }
}

void
virCheckpointDispatchStart(virCheckpointCall *call)
{
    virCheckpointProtoUuid raw;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;

    if (virCheckpointDispatchStartUuid(call, raw)) {
        virCheckpointWireUuidFormat(raw, uuid);
        if (!virCheckpointEngineSettle(call->engine, uuid, &error)) {
            virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
            return;
        }
    }
    virCheckpointCallForward(call);
}

/** How many checkpoints libvirt itself has of the domain. */
static gint
virCheckpointDispatchTheirs(virCheckpointCall *call,
                            const virCheckpointProtoDomain *dom)
{
    virCheckpointProtoListArgs args = {.dom = *dom};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_auto(virCheckpointProtoList) list = {0};

    answer = virCheckpointCallAsk(virCheckpointProtoListArgs, call,
                                  VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_ALL, &args);
    if (!answer || answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoList, answer, &list))
        return 0;
    return list.ret;
}

void
virCheckpointDispatchUndefine(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainFlags) args = {0};
    g_auto(virCheckpointProtoDomainArgs) now = {0};
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) error = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    gboolean good;

    if (call->frame->procedure == VIR_CHECKPOINT_PROC_DOMAIN_UNDEFINE) {
        /* The same arguments without flags. */
        g_auto(virCheckpointProtoDomainArgs) plain = {0};

        good =
            virCheckpointCallDecode(virCheckpointProtoDomainArgs, call->frame, &plain);
        args.dom = plain.dom;
        plain.dom.name = NULL;
    } else {
        good =
            virCheckpointCallDecode(virCheckpointProtoDomainFlags, call->frame, &args);
    }
    /* A domain that the client cannot see, or that stays: libvirt's affair. */
    if (!good || !virCheckpointCallDomain(call, args.dom.uuid, &now) ||
        now.dom.id != -1) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!(entries = virCheckpointEngineList(call->engine, uuid, &error))) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        return;
    }
    if (entries->len == 0) {
        virCheckpointCallForward(call);
    } else if (args.flags & VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA) {
        virCheckpointDispatchForwardWatched(call, virCheckpointDispatchUndefined,
                                            g_strdup(uuid));
    } else {
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
                              "cannot delete inactive domain with %d checkpoints",
                              virCheckpointDispatchTheirs(call, &args.dom) +
                                  (gint)entries->len);
    }
}

void
virCheckpointDispatchUndefined(virCheckpointCall *call)
{
    g_autoptr(GError) error = NULL;

    /* The domain is gone whatever happens here: the client gets libvirt's answer. */
    if (!virCheckpointEngineDrop(call->engine, call->data, &error))
        g_warning("drop checkpoints of undefined domain %s: %s", (gchar *)call->data,
                  error->message);
    virCheckpointCallPass(call, call->frame);
}
