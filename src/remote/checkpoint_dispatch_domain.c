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
 *
 * A list of the domains with, or without, checkpoints counts both kinds: libvirt is
 * asked for the list without that filter and for its own domains with checkpoints.
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_fault.h"
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

/** A store that cannot be written holds no start back by itself: without a job the
 * images are the domain's own, and what is to be settled is settled later. */
static gboolean
virCheckpointDispatchMayStart(virCheckpointCall *call,
                              const gchar *uuid,
                              GError **error)
{
    g_autoptr(GError) unsettled = NULL;

    if (!virCheckpointEngineSettleHere(call->engine, uuid, &unsettled)) {
        if (virCheckpointEngineMustSettle(call->engine, uuid)) {
            g_propagate_error(error, g_steal_pointer(&unsettled));
            return FALSE;
        }
        g_warning("domain %s starts unsettled: %s", uuid, unsettled->message);
    }
    return virCheckpointEngineMayStart(call->engine, uuid, error);
}

void
virCheckpointDispatchStart(virCheckpointCall *call)
{
    virCheckpointProtoUuid raw;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;

    if (virCheckpointDispatchStartUuid(call, raw)) {
        virCheckpointWireUuidFormat(raw, uuid);
        virCheckpointEngineStartComes(call->engine, uuid);
        if (!virCheckpointDispatchMayStart(call, uuid, &error) ||
            !virCheckpointFaultPoint("start/settled", &error)) {
            virCheckpointEngineStartRefused(call->engine, uuid);
            virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
            return;
        }
        virCheckpointEngineStartGoes(call->engine, uuid);
    }
    virCheckpointCallForward(call);
}

/* Reverting: to what an image holds inside itself QEMU does not while it has bitmaps;
 * libvirt 9.0 then leaves the guest off. */

gboolean
virCheckpointDispatchRevertWanted(virCheckpointDispatch *dispatch,
                                  const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoCheckpointFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoCheckpointFlags, frame, &args))
        return FALSE;
    virCheckpointWireUuidFormat(args.checkpoint.dom.uuid, uuid);
    return virCheckpointEngineTracks(dispatch->engine, uuid);
}

/** TRUE if a disk's state of that snapshot is inside its image. */
static gboolean
virCheckpointDispatchIsInternal(virCheckpointCall *call,
                                const virCheckpointProtoCheckpointFlags *args)
{
    virCheckpointProtoCheckpointFlags ask = {.checkpoint = args->checkpoint};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_auto(virCheckpointProtoText) reply = {0};
    g_autoptr(xmlDoc) doc = NULL;

    answer = virCheckpointCallAsk(virCheckpointProtoCheckpointFlags, call,
                                  VIR_CHECKPOINT_PROC_SNAPSHOT_GET_XML_DESC, &ask);
    if (!answer || answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoText, answer, &reply))
        return FALSE;
    doc = virCheckpointXmlParse(reply.text, "(snapshot)", "domainsnapshot", NULL);
    return doc && virCheckpointXmlNode(xmlDocGetRootElement(doc),
                                       "./disks/disk[@snapshot='internal']");
}

void
virCheckpointDispatchRevert(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCheckpointFlags) args = {0};
    virCheckpointProtoCheckpointFlags ask;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;
    gboolean mirror;

    if (!virCheckpointCallDecode(virCheckpointProtoCheckpointFlags, call->frame,
                                 &args)) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.checkpoint.dom.uuid, uuid);
    mirror = virCheckpointEngineHasMirror(call->engine, uuid, NULL);
    if (!mirror && !virCheckpointDispatchIsInternal(call, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.checkpoint.name = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_NAME;
    if (!virCheckpointRightsAsk(virCheckpointProtoCheckpointFlags, call,
                                call->frame->procedure, &ask,
                                virCheckpointRightsSnapshotName))
        return;
    if (mirror)
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_OPERATION_INVALID,
                              "domain has active block job");
    else if (virCheckpointEngineGiveUp(call->engine, uuid, &error))
        virCheckpointCallForward(call);
    else
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
}

/** How many checkpoints libvirt itself has of the domain. */
static gint
virCheckpointDispatchTheirs(virCheckpointCall *call,
                            const virCheckpointProtoDomain *dom)
{
    virCheckpointProtoListArgs args = {.dom = *dom, .need_results = 1};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_auto(virCheckpointProtoList) list = {0};

    answer = virCheckpointCallAsk(virCheckpointProtoListArgs, call,
                                  VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_ALL, &args);
    if (!answer || answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoList, answer, &list))
        return 0;
    virCheckpointDispatchHideTheirs(&list);
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
    /* A domain that the client cannot see, or that is left behind by a migration:
     * libvirt's affair. */
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!good || !virCheckpointCallDomain(call, args.dom.uuid, &now) ||
        virCheckpointEngineIsElsewhere(call->engine, uuid)) {
        virCheckpointCallForward(call);
        return;
    }
    if (now.dom.id != -1) {
        /* It stays until it ends, and they with it. */
        if ((args.flags & VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA) &&
            virCheckpointEngineTracks(call->engine, uuid))
            virCheckpointEngineLeave(call->engine, uuid);
        virCheckpointCallForward(call);
        return;
    }
    entries = virCheckpointEngineList(call->engine, uuid, &error);
    if (!entries && virCheckpointEngineTracks(call->engine, uuid)) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        return;
    }
    if (!entries || entries->len == 0) {
        virCheckpointCallForward(call);
    } else if (args.flags & VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA) {
        virCheckpointEngineLeave(call->engine, uuid);
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

/* Lists of domains. */

#define VIR_CHECKPOINT_LIST_HAS VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT
#define VIR_CHECKPOINT_LIST_FILTERS                                                    \
    (VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT | VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT)

gboolean
virCheckpointDispatchListWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainsArgs) args = {0};
    guint filter;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainsArgs, frame, &args))
        return FALSE;
    /* Both or neither: everything passes. */
    filter = args.flags & VIR_CHECKPOINT_LIST_FILTERS;
    return filter != 0 && filter != VIR_CHECKPOINT_LIST_FILTERS;
}

/** Asks libvirt for a list; FALSE: the call was answered, or nobody waits. */
static gboolean
virCheckpointDispatchAskDomains(virCheckpointCall *call,
                                guint flags,
                                virCheckpointProtoDomains *out)
{
    const virCheckpointProtoDomainsArgs args = {.need_results = 1, .flags = flags};
    g_autoptr(virCheckpointFrame) answer = NULL;

    answer = virCheckpointCallAsk(virCheckpointProtoDomainsArgs, call,
                                  VIR_CHECKPOINT_PROC_LIST_ALL_DOMAINS, &args);
    if (!answer)
        return FALSE;
    if (answer->status == VIR_CHECKPOINT_FRAME_OK &&
        virCheckpointCallDecode(virCheckpointProtoDomains, answer, out))
        return TRUE;
    virCheckpointCallPass(call, answer);
    return FALSE;
}

static gboolean
virCheckpointDispatchHasAny(virCheckpointCall *call, const gchar *uuid)
{
    g_autoptr(GPtrArray) entries = virCheckpointEngineList(call->engine, uuid, NULL);

    return entries && entries->len > 0;
}

void
virCheckpointDispatchListDomains(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainsArgs) args = {0};
    g_auto(virCheckpointProtoDomains) all = {0};
    g_auto(virCheckpointProtoDomains) theirs = {0};
    g_autoptr(GHashTable) having =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree virCheckpointProtoDomain *chosen = NULL;
    virCheckpointProtoDomains reply = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    guint flags;
    guint i;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainsArgs, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    flags = args.flags & ~(guint)VIR_CHECKPOINT_LIST_FILTERS;
    if (!virCheckpointDispatchAskDomains(call, flags, &all) ||
        !virCheckpointDispatchAskDomains(call, flags | VIR_CHECKPOINT_LIST_HAS,
                                         &theirs))
        return;
    for (i = 0; i < theirs.domains.domains_len; i++) {
        virCheckpointWireUuidFormat(theirs.domains.domains_val[i].uuid, uuid);
        g_hash_table_add(having, g_strdup(uuid));
    }
    chosen = g_new0(virCheckpointProtoDomain, (gsize)all.domains.domains_len + 1);
    for (i = 0; i < all.domains.domains_len; i++) {
        gboolean has;

        virCheckpointWireUuidFormat(all.domains.domains_val[i].uuid, uuid);
        has = g_hash_table_contains(having, uuid) ||
              virCheckpointDispatchHasAny(call, uuid);
        if (has == ((args.flags & VIR_CHECKPOINT_LIST_HAS) != 0))
            chosen[reply.ret++] = all.domains.domains_val[i];
    }
    if (args.need_results) {
        reply.domains.domains_val = chosen;
        reply.domains.domains_len = reply.ret;
    }
    virCheckpointCallReply(virCheckpointProtoDomains, call, &reply);
}
