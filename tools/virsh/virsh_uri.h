/*
 * virsh_uri.h: which connection, and its way through the gateway
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_URI_H
#define VIRSH_URI_H

#include <glib.h>

typedef enum {
    VIR_CHECKPOINT_VIRSH_ROUTE_NONE,  /* not for the gateway: used as it is */
    VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL, /* a socket on this host */
    VIR_CHECKPOINT_VIRSH_ROUTE_SSH,   /* a socket on a host behind ssh */
    VIR_CHECKPOINT_VIRSH_ROUTE_LAST
} virCheckpointVirshRouteKind;

typedef struct {
    virCheckpointVirshRouteKind kind;
    gchar *given;      /* the URI as it was */
    gchar *uri;        /* to open; rewritten unless kind is NONE */
    gchar *socketPath; /* LOCAL: the daemon's read-write socket */
    gchar *answers;    /* LOCAL: the socket that @uri names: @socketPath, or its -ro */
    gboolean readonly;
    gboolean chosen; /* VIRT_CHECKPOINT_SOCKET says where the daemon is */
} virCheckpointVirshRoute;

/** What the routing depends on; strings are borrowed, NULL when not set. */
typedef struct {
    gboolean root;
    gboolean readonly;
    const gchar *socketPath; /* VIRT_CHECKPOINT_SOCKET */
    const gchar *runtimeDir; /* the user's, where libvirt keeps session sockets */
} virCheckpointVirshHost;

/**
 * virCheckpointVirshUriDefault:
 * @given: value of -c, or NULL
 * @virshEnv: VIRSH_DEFAULT_CONNECT_URI; @libvirtEnv: LIBVIRT_DEFAULT_URI; or NULL
 * @config: text of libvirt.conf, or NULL
 * @root: whether the caller is root
 *
 * Returns: (transfer full): the URI that stock virsh would end up with, aliases of
 * libvirt.conf resolved.  Where libvirt would probe for a hypervisor: QEMU's.
 */
gchar *
virCheckpointVirshUriDefault(const gchar *given,
                             const gchar *virshEnv,
                             const gchar *libvirtEnv,
                             const gchar *config,
                             gboolean root);

/**
 * virCheckpointVirshRouteNew:
 * @uri: a libvirt URI
 *
 * Returns: (transfer full): how @uri goes through the gateway.  Only QEMU's system and
 * session URIs do, local or over ssh (system only: nobody here knows the runtime
 * directory there), unless they name a socket or ask for virt-ssh-helper themselves.
 */
virCheckpointVirshRoute *
virCheckpointVirshRouteNew(const gchar *uri, const virCheckpointVirshHost *host);

/** Leads a LOCAL route to another read-write socket, or the -ro beside it. */
void
virCheckpointVirshRouteMove(virCheckpointVirshRoute *route, const gchar *socketPath);
void
virCheckpointVirshRouteFree(virCheckpointVirshRoute *route);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointVirshRoute, virCheckpointVirshRouteFree)

#endif
